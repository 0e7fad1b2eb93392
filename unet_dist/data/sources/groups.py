"""Samples that belong together, and splits that never tear them apart.

Owns what a group is and how groups are dealt to splits and to folds. Frames of one film that lie on both sides of a split make
every score of it too good. Pure functions of the ids, the counts and the seed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unet_dist.errors import DataError

SEQUENCE = "sequence"

_PATTERNS = {SEQUENCE: r"(?s)(.*?)\d*$", "folder": r"(?s)(?=(.*/))?"}
"""Words that stand for a pattern: names that differ in their last number only are of one group; those of one folder are."""
_MOST_NAMED = 5


@dataclass(frozen=True)
class Grouping:
    """How samples are split.

    Attributes:
        group_by: a regular expression whose first group, or else whole match, at the beginning of an id names its group; sequence
            or folder. None makes every sample a group of its own.
        folds: parts of equal size, of which each is the validation of one run; None leaves the splits as they are.
        fold: which of them it is, 0 to folds - 1.
    """

    group_by: str | None = None
    folds: int | None = None
    fold: int = 0


def groups_of(ids: Sequence[str], group_by: str | None) -> list[str]:
    """Name the group of each sample.

    >>> groups_of(["0001TP_006690", "0001TP_006720", "0016E5_07959"], "sequence")
    ['0001TP_', '0001TP_', '0016E5_']
    >>> groups_of(["anna/mr/1", "anna/mr/2", "ben/1", "3"], "folder")
    ['anna/mr/', 'anna/mr/', 'ben/', '']

    Raises:
        DataError: an id that the pattern does not match.
    """
    if group_by is None:
        return list(ids)
    pattern = re.compile(_PATTERNS.get(group_by, group_by))
    found = [pattern.match(name) for name in ids]
    without = [name for name, one in zip(ids, found, strict=True) if one is None]
    if without:
        raise DataError(
            f"group_by: got {group_by!r}, which does not match {len(without)} of {len(ids)} ids, such as {without[0]!r}. "
            "Expected a regular expression that begins where an id begins. Change group_by."
        )
    return [(one[1] or "") if pattern.groups else one[0] for one in found if one is not None]


def cut_groups(groups: Sequence[str], fractions: Mapping[str, int], seed: int) -> dict[str, list[int]]:
    """Cut samples into parts near the given proportions, each group wholly in one, no part empty; sorted positions.

    The largest group goes first, each to the part that is furthest from its size. Groups of one size come in the order of BLAKE2
    of seed and name.

    Raises:
        DataError: there are fewer groups than parts.
    """
    members = _members(groups)
    _require_groups(members, len(fractions), f"cutting into {', '.join(fractions)}")
    total = sum(fractions.values())
    parts: dict[str, list[int]] = {name: [] for name in fractions}
    order = _order({group: float(len(positions)) for group, positions in members.items()}, seed)
    for number, group in enumerate(order):
        left = len(order) - number
        empty = [name for name in parts if not parts[name]]
        open_parts = empty if left <= len(empty) else list(parts)
        # In whole numbers: the samples that a part lacks, times all proportions.
        chosen = max(open_parts, key=lambda name: fractions[name] * len(groups) - total * len(parts[name]))
        parts[chosen].extend(members[group])
    return {name: sorted(positions) for name, positions in parts.items()}


def deal_folds(groups: Sequence[str], class_counts: Sequence[Sequence[int]], folds: int, seed: int) -> list[list[int]]:
    """Deal samples to folds that are alike in the number of samples and in the pixels of each class; sorted positions.

    Args:
        class_counts: pixels of each class of each sample.

    The group with the largest shares of all that is counted goes first, so that rare classes are dealt while there is
    a choice; each goes to the fold that it leaves the most even.

    Raises:
        DataError: there are fewer groups than folds.
    """
    members = _members(groups)
    _require_groups(members, folds, f"{folds} folds")
    # The number of samples counts as a class does, and every one as much as the others, however rare it is.
    amounts = [[1, *(int(count) for count in counts)] for counts in class_counts]
    totals = [max(1, sum(column)) for column in zip(*amounts, strict=True)]
    dealt: list[list[int]] = [[] for _ in range(folds)]
    held = [[0] * len(totals) for _ in range(folds)]
    added_by = {
        group: [sum(column) for column in zip(*(amounts[position] for position in positions), strict=True)]
        for group, positions in members.items()
    }
    weights = {
        group: sum(add / total for add, total in zip(added, totals, strict=True)) for group, added in added_by.items()
    }
    order = _order(weights, seed)
    for number, group in enumerate(order):
        added = added_by[group]
        empty = [fold for fold in range(folds) if not dealt[fold]]
        is_last_chance = len(order) - number <= len(empty)

        def unevenness(fold: int, added: list[int] = added) -> float:
            # What the sum of squares over the folds grows by.
            return sum(
                (add * (2 * have + add)) / total**2 for have, add, total in zip(held[fold], added, totals, strict=True)
            )

        chosen = min(empty if is_last_chance else range(folds), key=unevenness)
        dealt[chosen].extend(members[group])
        held[chosen] = [have + add for have, add in zip(held[chosen], added, strict=True)]
    return [sorted(positions) for positions in dealt]


def torn_groups(groups: Sequence[str], splits: Mapping[str, Sequence[int]]) -> list[str]:
    """Name the groups with samples in more than one split, in order of appearance."""
    seen: dict[str, set[str]] = {}
    for name, positions in splits.items():
        for position in positions:
            seen.setdefault(groups[position], set()).add(name)
    return [group for group in dict.fromkeys(groups) if len(seen.get(group, ())) > 1]


def _members(groups: Sequence[str]) -> dict[str, list[int]]:
    members: dict[str, list[int]] = {}
    for position, group in enumerate(groups):
        members.setdefault(group, []).append(position)
    return members


def _order(weights: Mapping[str, float], seed: int) -> list[str]:
    """The heaviest group first; equal ones by chance. Rounded, so that equal ones are equal on every machine."""

    def key(group: str) -> tuple[float, bytes]:
        return -round(weights[group], 9), hashlib.blake2b(f"{seed}:{group}".encode(), digest_size=16).digest()

    return sorted(weights, key=key)


def _require_groups(members: Mapping[str, list[int]], least: int, purpose: str) -> None:
    if len(members) < least:
        names = ", ".join(list(members)[:_MOST_NAMED])
        raise DataError(
            f"group_by: got {len(members)} group{'s' * (len(members) != 1)} ({names}), expected {least} or more for {purpose}. "
            "Change group_by or folds."
        )
