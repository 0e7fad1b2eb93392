"""Proves that the documentation site builds without a warning, and that a browser shows it without an error at both widths."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.report.chromium import MISSING, open_chromium, set_screen

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(find_spec(name) is None for name in ("sphinx", "myst_parser", "pydata_sphinx_theme")),
        reason="needs pip install 'unet_dist[docs]'",
    ),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=shutil.ignore_patterns("_build"))
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", str(folder / "docs"), str(folder / "html")],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "html"


def test_every_page_is_reached_and_every_key_is_there(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert {page for page in pages if not (site / page).is_file()} == set()
    reference = (site / "reference/command_line.html").read_text(encoding="utf-8")
    for key in ("data_path", "tile_size", "learning_rate", "window_batch"):
        assert f"--{key}<" in reference


@pytest.mark.browser
@pytest.mark.skipif(MISSING is not None, reason=MISSING or "")
def test_a_browser_shows_it_without_an_error(site: Path, tmp_path: Path) -> None:
    browser = open_chromium(tmp_path)
    try:
        for width in (390, 1280):
            set_screen(browser, width)
            for page in ("index.html", "reference/command_line.html", "explanation/contracts.html"):
                browser.get((site / page).as_uri())
                overflow = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
                assert overflow <= 0, (page, width)
                pictures = browser.execute_script(
                    "return [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
                )
                assert pictures == []
        severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
        assert severe == []
    finally:
        browser.quit()
