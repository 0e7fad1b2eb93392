"""Proves the page in a real browser: it loads nothing, logs no error, draws every chart, its divider moves, its legend switches
classes, its table sorts, its words can be read on light and on dark ground, and a phone needs no sideways scrolling."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.report.chromium import MISSING, open_chromium, set_screen
from tests.report.fabricated import fabricate
from unet_dist.data.decoded.labels import IGNORED
from unet_dist.data.decoded.planes import pack
from unet_dist.imaging.palette import class_palette
from unet_dist.report.contents import read_run
from unet_dist.report.figures import Sample
from unet_dist.report.page import comparison_page, run_page
from unet_dist.report.pictures import PICTURES_FOLDER, picture_name, write_sample

pytestmark = pytest.mark.browser
PIXELS = """const c = document.querySelector('[data-canvas="0"]');
return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.join()"""
# Drawn charts that need a scroll bar of their own; the confusion matrix may.
SCROLLING = """return [...document.querySelectorAll('[data-chart][data-drawn]')]
  .filter((place) => !place.closest('.square') && place.parentElement.scrollWidth > place.parentElement.clientWidth)
  .map((place) => place.dataset.chart)"""
# Contrast as WCAG 2.2 has it, of the words of the page, a tile and the first chart against what they stand on.
CONTRASTS = """const luminance = (colour) => {
  const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const style = (selector) => getComputedStyle(document.querySelector(selector));
const ground = luminance(style('body').backgroundColor);
const card = luminance(style('.card').backgroundColor);
const contrast = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
return {ground, words: [
  contrast(luminance(style('h1').color), ground),
  contrast(luminance(style('.sub').color), ground),
  contrast(luminance(style('.card th').color), card),
  contrast(luminance(style('.main-svg .xtick text').fill), card),
]}"""


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
    if MISSING is not None:
        pytest.skip(MISSING)
    pytest.importorskip("selenium.webdriver", reason="needs selenium, of the extra test")
    driver = open_chromium(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


def wait(browser: Any, condition: Any) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 60).until(condition)


def show(browser: Any, page: Path, width: int, *, is_dark: bool = False) -> None:
    """Open a page, and wait until its viewer and first chart are drawn."""
    set_screen(browser, width, is_dark=is_dark)
    browser.get(page.as_uri())
    script = "return document.querySelector('[data-viewer]').dataset.drawn && document.querySelector('[data-chart][data-drawn]')"
    wait(browser, lambda driver: driver.execute_script(script))


@pytest.mark.parametrize(("width", "is_dark"), [(1280, False), (390, True)], ids=["desktop light", "phone dark"])
@pytest.mark.parametrize("number", [0, 1], ids=["run", "comparison"])
def test_page_fits_the_screen_asks_for_nothing_and_can_be_read(
    browser: Any, pages: list[Path], number: int, width: int, is_dark: bool
) -> None:
    show(browser, pages[number], width, is_dark=is_dark)
    charts = browser.find_elements("css selector", "[data-chart]")
    assert len(charts) == (7, 4)[number]
    for chart in charts:
        browser.execute_script("arguments[0].scrollIntoView()", chart)
        wait(browser, lambda _, chart=chart: chart.get_attribute("data-drawn") is not None)
        assert chart.find_elements("css selector", ".main-svg")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(SCROLLING) == []
    seen = browser.execute_script(CONTRASTS)
    assert (seen["ground"] < 0.1) == is_dark
    assert min(seen["words"]) >= 4.5, seen
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    requests = [
        entry["message"] for entry in browser.get_log("performance") if 'requestWillBeSent"' in entry["message"]
    ]
    assert requests
    assert not [message for message in requests if '"url":"http' in message]


def test_charts_follow_the_reader_into_the_dark(browser: Any, pages: list[Path]) -> None:
    show(browser, pages[0], 1280)
    tick = "return getComputedStyle(document.querySelector('.main-svg .xtick text')).fill"
    light = browser.execute_script(tick)
    set_screen(browser, 1280, is_dark=True)
    wait(browser, lambda driver: driver.execute_script(tick) != light)
    assert browser.execute_script(CONTRASTS)["words"][-1] >= 4.5


def test_divider_moves_and_the_legend_switches_a_class(browser: Any, pages: list[Path]) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    show(browser, pages[0], 1280)
    divider = browser.find_element("css selector", "[data-divider]")
    divider.send_keys("\ue014")  # arrow right
    place = "return document.querySelector('[data-stage]').style.getPropertyValue('--at')"
    assert browser.execute_script(place) == "50.5%"
    ActionChains(browser).move_to_element(divider).click_and_hold().move_by_offset(-200, 0).release().perform()
    assert float(browser.execute_script(place).rstrip("%")) < 40

    before = browser.execute_script(PIXELS)
    first = browser.find_element("css selector", "[data-legend] button")
    first.click()
    assert first.get_attribute("aria-pressed") == "false"
    wait(browser, lambda driver: driver.execute_script(PIXELS) != before)
    pressed = "return [...document.querySelectorAll('[data-legend] button')].map((b) => b.getAttribute('aria-pressed'))"
    browser.find_element("css selector", "[data-none]").click()
    assert set(browser.execute_script(pressed)) == {"false"}
    browser.find_element("css selector", "[data-all]").click()
    assert set(browser.execute_script(pressed)) == {"true"}
    wait(browser, lambda driver: driver.execute_script(PIXELS) == before)


def test_names_are_words_in_charts(browser: Any, tmp_path: Path) -> None:
    """Plotly reads HTML in any text, and takes names of digits for numbers, by which it sorts."""
    names = ['<a href="https://x.example">a</a>', "10", "9", "<b>b</b> &amp; c"]
    (tmp_path / "a.html").write_text(
        run_page(read_run(fabricate(tmp_path / "run", class_names=names))), encoding="utf-8"
    )
    show(browser, tmp_path / "a.html", 1280)
    place = browser.find_element("css selector", '[data-chart="iou"]')
    browser.execute_script("arguments[0].scrollIntoView()", place)
    wait(browser, lambda _: place.get_attribute("data-drawn") is not None)
    shown = browser.execute_script(
        "return [...arguments[0].querySelectorAll('.ytick text')].map((text) => text.textContent)", place
    )
    assert sorted(shown) == sorted(names)
    assert browser.execute_script("return document.querySelectorAll('.main-svg a').length") == 0


def test_overlapping_classes_are_mixed_and_named(browser: Any, tmp_path: Path) -> None:
    """Class 0 lies on the left half and class 8, of another byte, on the upper one; the last row counts nowhere."""
    names = [f"class {number}" for number in range(9)]
    run = fabricate(tmp_path / "run", class_names=names, images=1, pictures=1, ignore_index=None)
    planes = np.zeros((20, 30, 9), np.uint8)
    planes[:, :15, 0], planes[:10, :, 8], planes[-1] = 1, 1, IGNORED
    guessed = np.roll(planes, 1, axis=2).transpose(2, 0, 1)  # class 1 on the left, class 0 above
    sample = Sample(np.full((20, 30, 3), 90, np.uint8), pack(planes), guessed)
    write_sample(run / PICTURES_FOLDER, picture_name("test", 0), sample, 9)
    page = tmp_path / "page.html"
    page.write_text(run_page(read_run(run)), encoding="utf-8")
    show(browser, page, 1280)
    layer = """const c = document.querySelector('[data-row] canvas[data-layer="LAYER"]'); c.scrollIntoView();
    const at = (x, y) => [...c.getContext('2d').getImageData(x, y, 1, 1).data].slice(0, 3);
    return [at(3, 3), at(20, 3), at(3, 15), at(20, 15), at(3, 19)]"""
    colours = class_palette(9).astype(float)

    def mixed(*classes: int) -> list[int]:
        return np.rint(colours[list(classes)].mean(axis=0)).astype(int).tolist()

    for word, first, second in (("label", 0, 8), ("prediction", 1, 0)):
        expected = [mixed(first, second), mixed(second), mixed(first), [90, 90, 90], [0, 0, 0]]
        wait(browser, lambda driver, word=word, e=expected: driver.execute_script(layer.replace("LAYER", word)) == e)
    legend = [each.text for each in browser.find_elements("css selector", "[data-legend] button")]
    assert legend == ["class 0", "class 1", "class 8"]
    hover = """const box = document.querySelector('[data-stage]').getBoundingClientRect();
    document.querySelector('[data-stage]').dispatchEvent(new PointerEvent('pointermove',
      {clientX: box.left + box.width * 0.1, clientY: box.top + box.height * 0.2}));
    return document.querySelector('[data-readout]').textContent"""
    wait(
        browser, lambda driver: driver.execute_script(hover) == "label: class 0, class 8 · prediction: class 0, class 1"
    )


def test_the_table_sorts_by_the_heading_that_is_clicked(browser: Any, pages: list[Path]) -> None:
    show(browser, pages[1], 1280)
    table = browser.find_element("css selector", "#table table")
    heading = next(each for each in table.find_elements("css selector", "thead button") if each.text == "mean IoU")

    def order() -> list[str]:
        return [each.text for each in table.find_elements("css selector", "tbody th")]

    assert order() == ["one", "two"]
    heading.click()  # the largest first
    assert order() == ["two", "one"]
    assert heading.find_element("xpath", "..").get_attribute("aria-sort") == "descending"
    heading.click()
    assert order() == ["one", "two"]
