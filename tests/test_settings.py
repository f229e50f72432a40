"""What a deployment may be told, and the sentence that refuses what contradicts itself."""

from pathlib import Path

import pytest

from plangate.errors import StartRefused
from plangate.settings import load_settings

TWO = """
[environments.shop]
stripe_account = "acct_1"
stripe_mode = "{mode}"
stripe_webhook_secrets = ["whsec_shop"]

[environments.club]
stripe_account = "acct_1"
stripe_webhook_secrets = ["{secret}"]
"""


def refused(variables: dict[str, str], folder: Path) -> str:
    with pytest.raises(StartRefused) as caught:
        load_settings(variables, folder=folder)
    text = str(caught.value)
    assert "sk_" not in text
    assert "whsec_" not in text
    return text


@pytest.mark.parametrize(
    ("key", "mode"),
    [("sk_live_abc", "test"), ("rk_live_abc", "test"), ("sk_test_abc", "live"), ("rk_test_abc", "live")],
)
def test_a_key_of_the_other_mode_is_refused(key: str, mode: str, tmp_path: Path) -> None:
    variables = {"PLANGATE_STRIPE_SECRET_KEY": key, "PLANGATE_STRIPE_MODE": mode}
    text = refused(variables, tmp_path)
    assert text.startswith("The setting PLANGATE_STRIPE_SECRET_KEY is a ")
    assert f"PLANGATE_STRIPE_MODE is {mode}" in text
    (tmp_path / "plangate.toml").write_text(f'[environments.shop]\nstripe_secret_key = "{key}"\nstripe_mode = "{mode}"')
    assert "[environments.shop] stripe_secret_key" in refused({}, tmp_path)


def test_keys_of_the_right_mode_and_of_other_shapes_start(tmp_path: Path) -> None:
    for key, mode in (("sk_live_abc", "live"), ("rk_test_abc", "test"), ("anything", "live")):
        variables = {"PLANGATE_STRIPE_SECRET_KEY": key, "PLANGATE_STRIPE_MODE": mode}
        assert load_settings(variables, folder=tmp_path).environments[0].stripe_mode == mode


def test_two_environments_may_not_be_mistaken_for_each_other(tmp_path: Path) -> None:
    file = tmp_path / "plangate.toml"
    file.write_text(TWO.format(mode="live", secret="whsec_club"))
    assert len(load_settings({}, folder=tmp_path).environments) == 2
    file.write_text(TWO.format(mode="test", secret="whsec_club"))
    assert "[environments.club] stripe_account" in refused({}, tmp_path)
    file.write_text(TWO.format(mode="live", secret="whsec_shop"))
    text = refused({}, tmp_path)
    assert "[environments.club] stripe_webhook_secrets" in text
    assert "environment shop" in text


@pytest.mark.parametrize(
    ("variables", "file", "named"),
    [
        ({"PLANGATE_STRIPE_MODE": "prod"}, "", "PLANGATE_STRIPE_MODE"),
        ({}, '[environments.shop]\nstripe_mode = "prod"', "[environments.shop] stripe_mode"),
        ({"PLANGATE_STRIPE_APP_ROLES": "usr_1=owner"}, "", "PLANGATE_STRIPE_APP_ROLES"),
        ({"PLANGATE_LOG_LEVEL": "loud"}, "", "PLANGATE_LOG_LEVEL"),
        ({}, 'log_level = "loud"', "log_level of plangate.toml"),
        ({}, "[environments.shop]\nbogus = 1", "[environments.shop] bogus"),
    ],
)
def test_a_setting_at_fault_is_named_as_people_write_it(
    variables: dict[str, str], file: str, named: str, tmp_path: Path
) -> None:
    (tmp_path / "plangate.toml").write_text(file)
    assert refused(variables, tmp_path).startswith(f"The setting {named} is not valid: ")
