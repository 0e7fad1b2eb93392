"""Draws the rooms of the package and the imports between them, read from the code.

python -m tests.measure.rooms_drawing docs/images/rooms.svg
"""

from __future__ import annotations

import sys
from collections import Counter
from functools import cache
from html import escape
from pathlib import Path

from tests.test_floors import FLOORS, PACKAGE, arrows, is_within, read_modules

WIDTH, ROW, BOX_HEIGHT, LEFT = 900, 92, 46, 20
"""Pixels of the drawing: its width, a floor's height, a room's height, the margin."""


def room_of(module: str) -> str | None:
    """The name in FLOORS that holds a module; the longest where several do."""
    names = [name for names in FLOORS for name in names if is_within(module, name)]
    return max(names, key=len, default=None)


def count_imports() -> Counter[tuple[str, str]]:
    """Count the imports between rooms: (importing room, imported room) -> imports."""
    counted: Counter[tuple[str, str]] = Counter()
    for module, _, target in arrows(read_modules(PACKAGE), "unet_dist"):
        here, there = room_of(module), room_of(target)
        if here and there and here != there:
            counted[here, there] += 1
    return counted


def drop_implied(imports: Counter[tuple[str, str]]) -> Counter[tuple[str, str]]:
    """Leave out each import that a longer way through other rooms implies."""
    below: dict[str, set[str]] = {}
    for here, there in imports:
        below.setdefault(here, set()).add(there)

    @cache
    def reachable(room: str) -> frozenset[str]:
        return frozenset(below.get(room, ())).union(*(reachable(next_room) for next_room in below.get(room, ())))

    return Counter(
        {
            (here, there): count
            for (here, there), count in imports.items()
            if not any(there in reachable(other) for other in below[here] - {there})
        }
    )


def place_rooms(imports: Counter[tuple[str, str]]) -> dict[str, tuple[float, float, float]]:
    """Give each room its place: (left, top, width) px; a room stands just above the highest that it imports."""
    floors: dict[str, int] = {}
    for name in (name for names in FLOORS for name in names):  # imports only go down: those below are placed
        floors[name] = max((floors[there] + 1 for here, there in imports if here == name), default=0)
    places = {}
    for floor in set(floors.values()):
        names = [name for name in floors if floors[name] == floor]
        widths = [22 + 8.4 * len(name) for name in names]
        gap = (WIDTH - 2 * LEFT - sum(widths)) / (len(names) + 1)
        left = LEFT + gap
        for name, width in zip(names, widths, strict=True):
            places[name] = (left, LEFT + (max(floors.values()) - floor) * ROW, width)
            left += width + gap
    return places


def draw(imports: Counter[tuple[str, str]]) -> str:
    """Draw the rooms as boxes and the imports as lines, as thick as there are many; implied ones are left out."""
    places = place_rooms(imports)
    height = LEFT + max(top for _, top, _ in places.values()) + BOX_HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="14">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for (here, there), count in sorted(drop_implied(imports).items()):
        (left, top, width), (to_left, to_top, to_width) = places[here], places[there]
        x, y, to_x, to_y = left + width / 2, top + BOX_HEIGHT, to_left + to_width / 2, to_top
        bend = (y + to_y) / 2
        parts.append(
            f'<path d="M{x:.0f},{y:.0f} C{x:.0f},{bend:.0f} {to_x:.0f},{bend:.0f} {to_x:.0f},{to_y:.0f}" fill="none" '
            f'stroke="#3b6ea5" stroke-opacity="0.6" stroke-width="{min(4, 0.6 + count / 6):.1f}">'
            f"<title>{escape(here)} imports {escape(there)}: {count}</title></path>"
        )
    for name, (left, top, width) in places.items():
        parts.append(
            f'<rect x="{left:.0f}" y="{top}" width="{width:.0f}" height="{BOX_HEIGHT}" rx="6" fill="#f3f6fa" stroke="#3b6ea5"/>'
            f'<text x="{left + width / 2:.0f}" y="{top + 28}" text-anchor="middle" fill="#1b2b3a">{escape(name)}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(draw(count_imports()), encoding="utf-8")
