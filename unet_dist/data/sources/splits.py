"""Which sample belongs to train, validation and test.

Owns the names of the splits and the cut 7:1:2. Knows nothing of pictures or files: numbers only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from unet_dist.data.sources.groups import Grouping, cut_groups, deal_folds, groups_of
from unet_dist.errors import DataError

FRACTIONS = {"train": 7, "validation": 1, "test": 2}
"""The cut of the reference task, for a source without splits."""

_SYNONYMS = {
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "eval": "validation",
    "testing": "test",
}


_COCO = re.compile(r"(train|val|test)(19|20)\d\d")
_WORDS = {"train", "training", "trainval", "val", "valid", "validation", "test", "testing", "testval", "holdout"}
_WORDS |= {"trn", "tst", "vld", "dev", "eval"}
_ABBREVIATED = {"tr", "ts", "te", "va", "vl"}
"""Of splits where two of them lie side by side; alone each may be anything."""
_GLUED = re.compile(
    r"(train|training|val|valid|validation|test|testing)(a|b|set|val|dev|data|images?|img|masks?|labels?|extra|mini|\d+)"
)


def held_out_split(names: Collection[str]) -> Literal["test", "validation"]:
    """The split to score a finished network on: test, or validation where there is no test split.

    >>> held_out_split(["train", "validation"])
    'validation'
    """
    return "validation" if "test" not in names and "validation" in names else "test"


def canonical_split(name: str) -> str:
    """Give the usual name of a split: `val` and COCO's `val2017` are `validation`."""
    name = name.lower()
    year = _COCO.fullmatch(name)
    name = year[1] if year else name
    return _SYNONYMS.get(name, name)


def is_split_name(name: str) -> bool:
    """Say whether a folder of this name is a split."""
    return canonical_split(name) in FRACTIONS


def looks_like_split(name: str) -> bool:
    """Say whether a name speaks of a split, known or not: `train_extra`, `testA`, `trainval`."""
    words = re.split(r"[^A-Za-z0-9]+|(?<=[a-z])(?=[A-Z])", name)
    return is_split_name(name) or any(
        word in _WORDS or _GLUED.fullmatch(word) or _COCO.fullmatch(word) for word in map(str.lower, words)
    )


def check_split_names(parent: object, names: Iterable[str]) -> list[str]:
    """Give the names that are splits: all of them, or none.

    Raises:
        DataError: one looks like a split and is none, or lies beside splits: its samples would be trained on unasked.
    """
    names = sorted(names)
    known = [name for name in names if is_split_name(name)]
    short = [name for name in names if name.lower() in _ABBREVIATED]
    odd = [name for name in names if name not in known and (known or looks_like_split(name) or len(short) > 1)]
    if odd:
        beside = f" beside {', '.join(known)}" if known else ""
        raise DataError(
            f"{parent}: {', '.join(odd[:10])}{beside} is not a known split. Expected train, val and test "
            "(training, validation, train2017 ... mean the same). Rename it to one of these, or move it out of the folder."
        )
    return known


def check_split_folders(parent: object, names: Iterable[str]) -> bool:
    """Say whether folders are splits. Raises: DataError: as `check_split_names`, or two mean the same split."""
    known = check_split_names(parent, names)
    meanings = {canonical_split(name) for name in known}
    if len(meanings) < len(known):
        raise DataError(f"{parent}: two of the folders {', '.join(known)} mean the same split. Keep one of them.")
    return bool(known)


NO_GROUPING = Grouping()


def assign_splits(
    given: dict[str, int],
    seed: int,
    *,
    ids: Sequence[str] = (),
    grouping: Grouping = NO_GROUPING,
    class_counts: Sequence[Sequence[int]] = (),
) -> dict[str, list[int]]:
    """Give the positions of each split's samples, where a source lists its samples split after split.

    A source of one split counts as one without splits and is cut 7:1:2. A source that gives `train` and others but no
    `validation` has it cut out of its `train`, one sample of eight (training needs one, and `test` must stay unseen).
    Everything else is as the source gives it; a missing `test` stays missing. Groups stay together wherever samples are cut. With
    folds every sample but those of a given `test` is dealt anew: one fold is `validation`, the others are `train`.

    Args:
        ids: of all samples; needed for groups and folds.
        class_counts: pixels of each class of all samples; needed for folds.

    Raises:
        DataError: there are too few samples or groups to cut.
    """
    positions: dict[str, list[int]] = {}
    start = 0
    for name, size in given.items():
        positions[name] = list(range(start, start + size))
        start += size
    groups = groups_of(ids, grouping.group_by) if grouping != NO_GROUPING else []
    if grouping.folds is not None:
        tests = positions.get("test", []) if len(given) > 1 else []
        pool = sorted(set(range(start)) - set(tests))
        dealt = deal_folds([groups[i] for i in pool], [class_counts[i] for i in pool], grouping.folds, seed)
        others = sorted(i for number, fold in enumerate(dealt) if number != grouping.fold for i in fold)
        folded = {"train": [pool[i] for i in others], "validation": [pool[i] for i in dealt[grouping.fold]]}
        return {**folded, **({"test": tests} if tests else {})}
    if len(given) == 1:
        return cut_groups(groups, FRACTIONS, seed) if groups else cut(start, FRACTIONS, seed)
    if "train" in given and "validation" not in given:
        train = positions["train"]
        fractions = {"train": 7, "validation": 1}
        parts = cut_groups([groups[i] for i in train], fractions, seed) if groups else cut(len(train), fractions, seed)
        positions["train"] = [train[i] for i in parts["train"]]
        positions["validation"] = [train[i] for i in parts["validation"]]
    return positions


def cut(num_samples: int, fractions: dict[str, int], seed: int) -> dict[str, list[int]]:
    """Cut `range(num_samples)` by chance into parts of the given proportions, each at least one sample, sorted.

    A pure function of its arguments on any machine and library version: the order is that of BLAKE2 of seed and
    position.

    Raises:
        DataError: there are fewer samples than parts.
    """
    if num_samples < len(fractions):
        raise DataError(
            f"The data has {num_samples} {'sample' if num_samples == 1 else 'samples'} and no splits of its own; "
            f"cutting it {':'.join(str(part) for part in fractions.values())} into {', '.join(fractions)} needs at "
            f"least {len(fractions)}. Add samples, or use the split all."
        )
    order = sorted(range(num_samples), key=lambda i: hashlib.blake2b(f"{seed}:{i}".encode(), digest_size=16).digest())
    parts: dict[str, list[int]] = {}
    start = 0
    for name, size in cut_sizes(num_samples, fractions).items():
        parts[name] = sorted(order[start : start + size])
        start += size
    return parts


def cut_sizes(num_samples: int, fractions: dict[str, int]) -> dict[str, int]:
    """Give the size of each part by largest remainder, none empty.

    >>> cut_sizes(1000, {"train": 7, "validation": 1, "test": 2})
    {'train': 700, 'validation': 100, 'test': 200}
    >>> cut_sizes(3, {"train": 7, "validation": 1, "test": 2})
    {'train': 1, 'validation': 1, 'test': 1}
    """
    total = sum(fractions.values())
    sizes = {name: num_samples * part // total for name, part in fractions.items()}
    by_remainder = sorted(fractions, key=lambda name: -(num_samples * fractions[name] % total))  # stable: ties in order
    for name in by_remainder[: num_samples - sum(sizes.values())]:
        sizes[name] += 1
    for name in sizes:
        if sizes[name] == 0:
            sizes[max(sizes, key=lambda other: sizes[other])] -= 1
            sizes[name] = 1
    return sizes
