"""The anonymous memory of this process (RssAnon, Linux): what it holds that no file backs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

POLL_S = 0.002


def rss_anon() -> int:
    """Bytes held now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


def highest_during(run: Callable[[], object]) -> int:
    """The most bytes held while `run` runs, looked at every 2 ms."""
    highest, done = rss_anon(), threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.is_set():
            highest = max(highest, rss_anon())
            time.sleep(POLL_S)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        run()
    finally:
        done.set()
        watcher.join()
    return highest
