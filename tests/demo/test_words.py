"""The name of a run is shown as what it is: in the demo's lines, and as the title of its page."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.hostile.test_words_of_others import HOSTILE, require_plain, said
from unet_dist import UNet
from unet_dist.commands import demo

pytestmark = pytest.mark.usefixtures("own_process")


def test_a_run_bears_any_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / HOSTILE
    UNet(3, 2, base_channels=2, depth=1, class_names=[HOSTILE, "b"]).save_pretrained(run)
    titles: list[str] = []

    def make_page(*_: Any, title: str, **__: Any) -> SimpleNamespace:
        titles.append(title)
        return SimpleNamespace(close=lambda verbose: None)

    monkeypatch.setattr(demo, "require_gradio", lambda folder: None)
    monkeypatch.setattr(demo, "make_page", make_page)
    monkeypatch.setattr(demo, "serve", lambda *_, **__: "http://127.0.0.1:7860")
    monkeypatch.setattr(demo, "_wait_for_a_signal", lambda: None)
    require_plain(said(capfd, "demo", run))
    (title,) = titles
    require_plain(title)
    assert "\n" not in title
    require_plain(said(capfd, "demo", tmp_path / f"no {HOSTILE}", code=2))
    require_plain(said(capfd, "demo", run, HOSTILE, code=2))
