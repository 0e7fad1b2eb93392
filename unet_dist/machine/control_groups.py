"""Memory that the control groups of this process leave it, as containers and job schedulers set them.

Owns where the kernel states that. Reads files only.
"""

from __future__ import annotations

from pathlib import Path

_NAMES = {"": ("memory.max", "memory.current"), "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes")}
"""Of limit and use, by the controllers of a hierarchy: the one of version 2 has no list of them."""
_NO_LIMIT = 2**60
"""Version 1 states the largest multiple of a page where there is none."""


def group_memory(
    stated: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> list[tuple[int, int]]:
    """Give limit and use, in bytes, of each control group with a limit that this process is in, the innermost first.

    Args:
        stated: lines such as `0::/job_7/step_0`, of which a container sees `0::/`.
        root: below which the groups are folders.
    """
    found = []
    try:
        lines = stated.read_text().splitlines()
    except OSError:  # no Linux
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        kind = "memory" if "memory" in controllers.split(",") else controllers
        if kind not in _NAMES:
            continue
        top = root / kind
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            found += _read(folder, *_NAMES[kind])
            if folder == top:
                break
    return found


def _read(folder: Path, limit_name: str, use_name: str) -> list[tuple[int, int]]:
    try:
        limit, use = int((folder / limit_name).read_text()), int((folder / use_name).read_text())
    except (OSError, ValueError):  # no such group in this view, or "max"
        return []
    return [(limit, use)] if limit < _NO_LIMIT else []
