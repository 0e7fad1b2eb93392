"""The limits of control groups are found from the process's own group up, in both versions."""

from __future__ import annotations

from pathlib import Path

from unet_dist.machine.control_groups import group_memory


def _write(folder: Path, **values: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (folder / name.replace("__", ".")).write_text(value + "\n")


def test_each_group_with_a_limit_counts(tmp_path: Path) -> None:
    root, stated = tmp_path / "cgroup", tmp_path / "stated"
    _write(root, memory__max="max", memory__current="9")
    _write(root / "job", memory__max="8000", memory__current="500")
    _write(root / "job" / "step", memory__max="max", memory__current="400")
    stated.write_text("0::/job/step\n")
    assert group_memory(stated, root) == [(8000, 500)]
    _write(root / "job" / "step", memory__max="3000")
    assert group_memory(stated, root) == [(3000, 400), (8000, 500)]


def test_version_1_and_a_container(tmp_path: Path) -> None:
    root, stated = tmp_path / "cgroup", tmp_path / "stated"
    _write(root / "memory", memory__limit_in_bytes="9223372036854771712", memory__usage_in_bytes="9")
    _write(root / "memory" / "a", memory__limit_in_bytes="7000", memory__usage_in_bytes="70")
    stated.write_text("11:cpu,cpuacct:/a\n4:memory:/a\n1:name=systemd:/a\n")
    assert group_memory(stated, root) == [(7000, 70)]
    _write(root, memory__max="600", memory__current="60")
    stated.write_text("0::/\n")
    assert group_memory(stated, root) == [(600, 60)]
    assert group_memory(tmp_path / "nowhere", root) == []
