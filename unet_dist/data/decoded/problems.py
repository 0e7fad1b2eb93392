"""The faults of the pairs of a data set, gathered to one message.

Owns its words. Must not know how pairs are read.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from unet_dist.data.decoded.labels import UnnamedIdsError
from unet_dist.errors import DataError, RefusedError

_MAX_LISTED = 10


@dataclass
class Problems:
    """The faults of the pairs so far: the first few in words, all of them in number."""

    total: int = 0
    first: list[RefusedError] = field(default_factory=list)
    unnamed: UnnamedIdsError | None = None
    """The ids of all masks that have some beyond the classes."""

    def add(self, problem: RefusedError) -> None:
        """Count a pair that cannot be used."""
        self.total += 1
        if isinstance(problem, UnnamedIdsError):
            seen = self.unnamed.ids if self.unnamed else set()
            self.unnamed = UnnamedIdsError("", seen | problem.ids, says_classes=problem.says_classes)
        if len(self.first) < _MAX_LISTED:
            self.first.append(problem)

    def raise_if_any(self, name: str, num_pairs: int) -> None:
        """Refuse a data set with faults. Raises: DataError: names the first few pairs, and each remedy once."""
        if not self.total:
            return
        lines = [f"{name}: {self.total} of {num_pairs} pairs cannot be used."]
        lines += [f"  {problem.got}" for problem in self.first]
        if self.total > len(self.first):
            lines.append(f"  and {self.total - len(self.first)} more")
        shared = [
            self.unnamed if self.unnamed and isinstance(problem, UnnamedIdsError) else problem for problem in self.first
        ]
        lines += [remedy for remedy in dict.fromkeys(problem.remedy for problem in shared) if remedy]
        raise DataError("\n".join(lines))
