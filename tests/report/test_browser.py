"""Proves the page in a real browser: it loads nothing, logs no error, its divider moves, its legend switches classes, and a phone
needs no sideways scrolling."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.report.fabricated import fabricate
from unet_dist.report.contents import read_run
from unet_dist.report.page import comparison_page, run_page

pytestmark = pytest.mark.browser
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PIXELS = """const c = document.querySelector('[data-canvas="0"]');
return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.join()"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run's page, and that of two."""
    folder = tmp_path_factory.mktemp("runs")
    runs = [read_run(fabricate(folder / name, quality=quality)) for name, quality in (("one", 0.5), ("two", 0.8))]
    (folder / "one.html").write_text(run_page(runs[0]), encoding="utf-8")
    (folder / "both.html").write_text(comparison_page(runs), encoding="utf-8")
    return [folder / "one.html", folder / "both.html"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs Debian's chromium and chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium, of the extra test")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def show(browser: Any, page: Path, width: int) -> None:
    """Open a page, and wait until its viewer and first chart are drawn."""
    from selenium.webdriver.support.ui import WebDriverWait

    size = {"width": width, "height": 850, "deviceScaleFactor": 1, "mobile": width < 700}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())
    script = "return document.querySelector('[data-viewer]').dataset.drawn && document.querySelector('.main-svg')"
    WebDriverWait(browser, 60).until(lambda driver: driver.execute_script(script))


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("number", [0, 1])
def test_page_fits_the_screen_and_asks_for_nothing(browser: Any, pages: list[Path], number: int, width: int) -> None:
    show(browser, pages[number], width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    requests = [
        entry["message"] for entry in browser.get_log("performance") if 'requestWillBeSent"' in entry["message"]
    ]
    assert requests
    assert not [message for message in requests if '"url":"http' in message]


def test_divider_moves_by_key_and_the_legend_switches_a_class(browser: Any, pages: list[Path]) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    show(browser, pages[0], 1280)
    divider = browser.find_element("css selector", "[data-divider]")
    divider.send_keys("\ue014")  # arrow right
    assert (
        browser.execute_script("return document.querySelector('[data-stage]').style.getPropertyValue('--at')")
        == "50.5%"
    )
    before = browser.execute_script(PIXELS)
    ids = "return [...document.querySelectorAll('[data-legend] button')].map((b) => b.getAttribute('aria-pressed'))"
    assert set(browser.execute_script(ids)) == {"true"}
    browser.execute_script("document.querySelector('[data-none]').click()")
    WebDriverWait(browser, 30).until(lambda driver: driver.execute_script(PIXELS) != before)
    assert set(browser.execute_script(ids)) == {"false"}
    browser.execute_script("document.querySelector('[data-all]').click()")
    WebDriverWait(browser, 30).until(lambda driver: driver.execute_script(PIXELS) == before)
