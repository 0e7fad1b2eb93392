"""The names of samples where one name is in several splits, as `train/a.png` and `val/a.png`.

Owns which name is shown. A cache's ids are unique over all splits (`a`, `a~2`); within a split the sample is `a` in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unet_dist.wording import make_unique

_REPEATED = "repeated_names"


def record_names(names: list[str]) -> dict[str, Any]:
    """What the index of a cache keeps of them, in the order of the samples: unique ids, and the names that these hide."""
    ids = make_unique(names)
    hidden = {str(number): name for number, (name, one) in enumerate(zip(names, ids, strict=True)) if name != one}
    return {"ids": ids, **({_REPEATED: hidden} if hidden else {})}


def names_of(index: Mapping[str, Any]) -> list[str]:
    """The samples' own names; their ids in a cache of an older release."""
    hidden = index.get(_REPEATED, {})
    return [hidden.get(str(number), one) for number, one in enumerate(index["ids"])]


def name_apart(
    names: Sequence[str], ids: Sequence[str], splits: Mapping[str, int], positions: Sequence[int]
) -> list[str]:
    """Name some samples so that no two of them share a name: by their own names, else with their split before a repeated one.

    >>> name_apart(["a", "a"], ["a", "a~2"], {"train": 1, "test": 1}, [1]), name_apart(["a", "a"], ["a", "a~2"],
    ...     {"train": 1, "test": 1}, [0, 1])
    (['a'], ['a', 'test-a'])
    """
    own = [names[position] for position in positions]
    if len(set(own)) == len(own):
        return own
    split_of = [split for split, size in splits.items() for _ in range(size)]
    shown = zip(own, positions, strict=True)
    return make_unique([name if name == ids[number] else f"{split_of[number]}-{name}" for name, number in shown])
