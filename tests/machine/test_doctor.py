"""Proves the page about a machine: it lists all that is there, and names a remedy for all that is missing."""

from __future__ import annotations

import configparser
import resource
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from unet_dist import __version__
from unet_dist.cli import main
from unet_dist.machine import doctor
from unet_dist.machine.doctor import as_text, examine


def test_page_lists_versions_devices_and_disks(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["doctor"])
    assert leaving.value.code == 0
    out = capsys.readouterr().out
    assert metadata.version("torch") in out
    assert [
        heading for heading in ("versions", "devices", "memory", "disk", "environment") if f"{heading}\n" not in out
    ] == []
    assert len(out.splitlines()) < 60, "one page"


def test_page_names_this_release_and_every_extra() -> None:
    """A checkout's metadata name the release of the day when it was installed."""
    rows = dict(examine({}, {}).rows["versions"])
    assert rows["unet_dist"] == __version__
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[2] / "setup.cfg", encoding="utf-8")
    shown = rows["extras"] + ", " + rows.get("extras not installed", "")
    assert [
        name for name in setup["options.extras_require"] if name not in ("docs", "test") and name not in shown
    ] == []


def remarks(tmp_path: Path, **environment: str) -> str:
    return "\n".join(examine({"folder of runs": tmp_path / "not" / "yet"}, environment).remarks)


def test_what_is_missing_has_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage: Any = type("Usage", (), {"free": 2**20})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _path: usage)
    monkeypatch.setattr(
        doctor.resource, "getrlimit", lambda kind: (256, 256) if kind == resource.RLIMIT_NOFILE else (-1, -1)
    )
    monkeypatch.setattr(doctor.torch, "get_num_threads", lambda: 0)
    said = remarks(tmp_path)
    for remedy in ("ulimit -n 4096", "--shm-size 8g", "folder of runs has 1.0 MiB free", "Unset OMP_NUM_THREADS"):
        assert remedy in said


def test_gpu_that_only_the_driver_sees_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_listed_gpus", lambda: 2)
    monkeypatch.setattr(doctor.torch.cuda, "device_count", lambda: 0)
    assert "The driver lists 2 GPUs and torch sees none" in remarks(tmp_path)


def test_nothing_to_mend_is_a_sentence() -> None:
    assert as_text(doctor.Findings({"versions": [("python", "3")]})).endswith(
        "Nothing here is known to be slow or missing."
    )
