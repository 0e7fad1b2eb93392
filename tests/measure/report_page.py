"""Measure the page of a long run: its size, how long it takes to make, and how long a browser takes to open it.

    python -m tests.measure.report_page [--steps 6000] [--images 200] [--pictures 6] [--rounds 5] [--keep FOLDER]

The run is fabricated: 35 classes, a record every ten steps, pictures of the size that an evaluation keeps. Each opening is a
browser with an empty profile, as Chromium keeps what it compiled. Seconds are counted from the navigation by the page's own
clock: to the load event, and to the frame after which every chart within its reach of the screen (1280x850) and the first
picture are drawn. Exits with 1 beyond 10 MB, 30 s, or 2 s.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.report.chromium import MISSING, open_chromium, set_screen
from tests.report.fabricated import fabricate
from unet_dist.cli import run

MAX_MB, MAX_MAKING_S, MAX_OPENING_S = 10.0, 30.0, 2.0

# The page marks what it has drawn; the frame after the last mark is on the screen.
_WATCH = """
addEventListener("load", () => {
  const look = () => {
    const near = [...document.querySelectorAll("[data-chart]")].filter(
      (place) => place.getBoundingClientRect().top < innerHeight + 600);
    const isDrawn = near.every((place) => place.dataset.drawn !== undefined);
    if (isDrawn && document.querySelector("[data-viewer]").dataset.drawn) {
      requestAnimationFrame(() => setTimeout(() => { window.drawnAt = performance.now(); }));
    } else {
      setTimeout(look, 5);
    }
  };
  look();
});
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--pictures", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    if MISSING:
        parser.error(MISSING)
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.keep or Path(scratch)) / "long-run"
        fabricate(
            folder,
            steps=options.steps,
            images=options.images,
            pictures=options.pictures,
            picture_size=(540, 960),
            ignore_index=34,
        )
        started = time.perf_counter()
        run(["report", str(folder)])
        making = time.perf_counter() - started
        page = folder / "report.html"
        size = page.stat().st_size / 1e6
        openings = [open_page(page) for _ in range(options.rounds)]
    print(f"size: {size:.1f} MB (at most {MAX_MB:.0f} wanted)")
    print(f"made in {making:.1f} s, with the PNG figures (at most {MAX_MAKING_S:.0f} wanted)")
    medians = []
    for words, seconds in zip(("the load event", "the charts drawn"), zip(*openings, strict=True), strict=True):
        medians.append(statistics.median(seconds))
        print(f"opened to {words}: {medians[-1]:.2f} s, median of {min(seconds):.2f} to {max(seconds):.2f}")
    print(f"(at most {MAX_OPENING_S:.0f} s wanted)")
    sys.exit(0 if size <= MAX_MB and making <= MAX_MAKING_S and max(medians) <= MAX_OPENING_S else 1)


def open_page(page: Path) -> tuple[float, float]:
    """Open a page in a new browser; returns the seconds to the load event and to the drawing."""
    from selenium.webdriver.support.ui import WebDriverWait

    with tempfile.TemporaryDirectory() as profile:
        browser = open_chromium(Path(profile))
        try:
            set_screen(browser, 1280)
            browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _WATCH})
            browser.get(page.as_uri())
            drawn = WebDriverWait(browser, 60).until(lambda driver: driver.execute_script("return window.drawnAt"))
            load = browser.execute_script("return performance.getEntriesByType('navigation')[0].loadEventEnd")
        finally:
            browser.quit()
    return load / 1000, drawn / 1000


if __name__ == "__main__":
    main()
