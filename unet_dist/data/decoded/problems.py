"""The faults of the pairs of a data set, gathered to one message.

Owns its words. Must not know how pairs are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from unet_dist.errors import DataError, RefusedError
from unet_dist.wording import counted

_MAX_LISTED = 10
_PLURAL = {"holds": "hold", "has": "have", "is": "are"}


class SharedError(RefusedError):
    """A fault of one mask's values that others may share: one line names them all, and one remedy serves them all.

    Args:
        explain: from values with their pixels, of one mask or of many, to the fault (from its verb on) and the remedy.
        values: pixels of each value of the mask.
        key: masks whose faults have the same have one line.
    """

    def __init__(
        self, explain: Callable[[Counter[int]], tuple[str, str]], values: Counter[int], key: Hashable = None
    ) -> None:
        super().__init__(*explain(values))
        self.explain, self.values, self.key, self.name = explain, values, (explain, key), ""

    def put_name(self, name: str) -> None:
        """Put the name of the mask before its fault."""
        super().put_name(name)
        self.name = name


@dataclass
class _Line:
    """A fault, the number of pairs that have it, and the pixels of its values over all of them."""

    problem: RefusedError
    num_pairs: int
    values: Counter[int]

    def __str__(self) -> str:
        if self.num_pairs == 1 or not isinstance(self.problem, SharedError):
            return self.problem.got
        verb, _, rest = self.problem.explain(self.values)[0].partition(" ")
        return f"{self.problem.name} and {counted(self.num_pairs - 1, 'other')} {_PLURAL[verb]} {rest}"


@dataclass
class Problems:
    """The faults of the pairs so far: the first few in words, all of them in number."""

    total: int = 0
    lines: dict[Hashable, _Line] = field(default_factory=dict)
    values: dict[Hashable, Counter[int]] = field(default_factory=dict)
    """Of all masks that share an explanation: their remedy must serve them all."""

    def add(self, problem: RefusedError) -> None:
        """Count a pair that cannot be used."""
        self.total += 1
        key: Hashable = self.total
        values: Counter[int] = Counter()
        if isinstance(problem, SharedError):
            key, values = problem.key, problem.values
            self.values.setdefault(problem.explain, Counter()).update(values)
        if key in self.lines:
            self.lines[key].num_pairs += 1
            self.lines[key].values.update(values)
        elif len(self.lines) < _MAX_LISTED:
            self.lines[key] = _Line(problem, 1, Counter(values))

    def raise_if_any(self, name: str, num_pairs: int) -> None:
        """Refuse a data set with faults. Raises: DataError: names the first few pairs, and each remedy once."""
        if not self.total:
            return
        lines = [f"{name}: {self.total} of {num_pairs} pairs cannot be used."]
        lines += [f"  {line}" for line in self.lines.values()]
        if left := self.total - sum(line.num_pairs for line in self.lines.values()):
            lines.append(f"  and {left} more")
        lines += [remedy for remedy in dict.fromkeys(map(self._remedy, self.lines.values())) if remedy]
        raise DataError("\n".join(lines))

    def _remedy(self, line: _Line) -> str:
        problem = line.problem
        return problem.explain(self.values[problem.explain])[1] if isinstance(problem, SharedError) else problem.remedy
