"""Proves the dry run: data are checked and memory is planned, and no run begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from unet_dist.cli import run


def test_dry_run_checks_and_plans_and_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--synthetic_images", "4", "--synthetic_size", "48x80", "--depth", "1", "--base_channels", "2"]
    run(["train", *words, "--input_size", "44", "--batch_size", "2", "--cache_path", "cache", "--dry_run"])
    out = capsys.readouterr().out
    assert "4 images of 48x80 px" in out
    assert "The run fits" in out
    assert "Nothing was trained" in out
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
