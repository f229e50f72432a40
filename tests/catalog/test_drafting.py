"""A draft is nobody's catalogue until it is published, and never undoes what somebody else applied."""

import asyncio
import copy
from typing import Any

import pytest

from plangate import catalog
from plangate.catalog_document import document_value
from plangate.catalog_file import parse_catalog
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from tests.world import ACTOR, DOCUMENT, make_company, publish, put_on


def edited(limit: int) -> dict[str, Any]:
    """The test catalogue with another limit on Pro."""
    document: dict[str, Any] = copy.deepcopy(dict(DOCUMENT))
    document["plans"]["pro"]["entitlements"]["exports"]["limit"] = limit
    return document


async def refusal(work: Any) -> Refusal:  # noqa: ANN401 - any awaitable
    """What it is refused with."""
    with pytest.raises(Refusal) as caught:
        await work
    return caught.value


async def test_a_draft_is_diffed_and_published(environment: Environment) -> None:
    await publish(environment)
    acme = await make_company(environment)
    await put_on(environment, acme.id, "pro")
    saved = await catalog.save_draft(environment, edited(2_000), actor=ACTOR)
    assert (saved.revision, saved.document) == (1, document_value(parse_catalog(edited(2_000))))
    assert await catalog.current_draft(environment) == saved
    assert (await catalog.current_revision(environment))[0] == 1
    diff = await catalog.diff_draft(environment)
    assert [(one.key, one.version) for one in diff.changes] == [("pro", 2)]
    assert diff.impact is not None
    assert diff.impact.affected == 1
    kept = await catalog.diff_draft(environment, migrate={"": "none"})
    assert kept.impact is not None
    assert kept.impact.affected == 0
    published = await catalog.publish_draft(environment, actor=ACTOR, migrate={"": "none"})
    assert (published.revision, published.is_applied, published.changes[0].migrate) == (2, True, "none")
    assert (await refusal(catalog.current_draft(environment))).code is Code.NOT_FOUND
    assert (await environment.catalog()).plans["pro"].version == 2


async def test_a_draft_does_not_undo_what_was_applied_meanwhile(environment: Environment) -> None:
    await publish(environment)
    await catalog.save_draft(environment, edited(2_000), actor=ACTOR)
    await publish(environment, edited(3_000))
    for work in (
        catalog.diff_draft(environment),
        catalog.publish_draft(environment, actor=ACTOR),
        catalog.save_draft(environment, edited(4_000), actor=ACTOR, expected_revision=1),
    ):
        assert (await refusal(work)).code is Code.CATALOG_STALE
    # Editing it does not make it newer; saying what it is based on does.
    assert (await catalog.save_draft(environment, edited(4_000), actor=ACTOR)).revision == 1
    based = await catalog.save_draft(environment, edited(4_000), actor=ACTOR, expected_revision=2)
    assert based.revision == 2
    assert (await catalog.publish_draft(environment, actor=ACTOR)).revision == 3


async def test_two_editors_do_not_overwrite_each_other(environment: Environment) -> None:
    await publish(environment)
    first = await catalog.save_draft(environment, edited(2_000), actor=ACTOR)
    second = await catalog.save_draft(environment, edited(3_000), actor=ACTOR, expected_etag=first.etag)
    late = [
        catalog.save_draft(environment, edited(1), actor=ACTOR, expected_etag=first.etag),
        catalog.publish_draft(environment, actor=ACTOR, expected_etag=first.etag),
        catalog.discard_draft(environment, actor=ACTOR, expected_etag=first.etag),
    ]
    for work in late:
        assert (await refusal(work)).code is Code.ETAG_MISMATCH
    assert await catalog.discard_draft(environment, actor=ACTOR, expected_etag=second.etag) == second
    gone = catalog.save_draft(environment, edited(1), actor=ACTOR, expected_etag="*")
    assert (await refusal(gone)).code is Code.ETAG_MISMATCH
    assert (await refusal(catalog.discard_draft(environment, actor=ACTOR))).code is Code.NOT_FOUND


async def test_of_many_editors_at_once_one_wins(environment: Environment) -> None:
    await publish(environment)
    first = await catalog.save_draft(environment, edited(1), actor=ACTOR)
    answers = await asyncio.gather(
        *(
            catalog.save_draft(environment, edited(limit), actor=ACTOR, expected_etag=first.etag)
            for limit in range(2, 10)
        ),
        return_exceptions=True,
    )
    (winner,) = [one for one in answers if isinstance(one, catalog.CatalogDraft)]
    assert await catalog.current_draft(environment) == winner
    assert {one.code for one in answers if isinstance(one, Refusal)} == {Code.ETAG_MISMATCH}


async def test_a_faulty_draft_is_not_saved(environment: Environment) -> None:
    faulty = edited(2_000)
    faulty["plans"]["pro"]["entitlements"]["nothing"] = True
    found = await refusal(catalog.save_draft(environment, faulty, actor=ACTOR))
    assert [error.pointer for error in found.errors] == ["/plans/pro/entitlements/nothing"]
    assert (await refusal(catalog.current_draft(environment))).code is Code.NOT_FOUND


async def test_a_publication_that_died_before_the_draft_was_dropped_is_finished(environment: Environment) -> None:
    await publish(environment)
    await catalog.save_draft(environment, edited(2_000), actor=ACTOR)
    # As far as it got: the catalogue is in force, the draft is still there.
    await publish(environment, edited(2_000))
    again = await catalog.publish_draft(environment, actor=ACTOR)
    assert (again.revision, again.is_applied) == (2, False)
    assert (await refusal(catalog.current_draft(environment))).code is Code.NOT_FOUND
