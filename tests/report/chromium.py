"""Headless Chromium, as the tests and measurements of pages open it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
MISSING = None if CHROMIUM and DRIVER else "needs Debian's chromium and chromium-driver"

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def open_chromium(profile: Path) -> Any:
    """Start a browser that logs its console and its requests; the caller quits it.

    Args:
        profile: an empty folder: nothing is cached from before.
    """
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))


def set_screen(browser: Any, width: int, *, height: int = 850, is_dark: bool = False) -> None:
    """Emulate a screen of that many CSS pixels, a phone's below 700, and the reader's wish for light or dark."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    wishes = {
        "prefers-color-scheme": "dark" if is_dark else "light",
        "prefers-reduced-motion": "reduce",
    }  # jumps, no glides
    features = [{"name": name, "value": value} for name, value in wishes.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
