"""The wheel carries everything a command needs: an installation without the checkout works like one with it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

_CHECKOUT = Path(__file__).parents[2]
_TRY = """
from plangate.cli.shipped import dashboard_app_manifest, demo_catalog_text
from plangate.resources import components_folder
from plangate.web.embed import build_embed
import plangate
sizes = (len(demo_catalog_text()), len(dashboard_app_manifest()), len(build_embed().text))
print(plangate.__file__, components_folder(), *sizes)
"""


def test_an_installed_wheel_needs_no_checkout(tmp_path: Path) -> None:
    subprocess.run(  # noqa: S603 - our own sources.
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", tmp_path, _CHECKOUT],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    tried = subprocess.run(  # noqa: S603 - our own script.
        [sys.executable, "-c", _TRY],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    package, folder, *sizes = tried.stdout.split()
    assert Path(package).is_relative_to(installed)
    assert Path(folder).is_relative_to(installed)
    assert all(int(size) > 0 for size in sizes)
