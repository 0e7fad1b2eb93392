"""Environment variables that a library reads and cannot use: named, in place of the library's traceback.

Owns how the variable is found from the failure alone, whichever library and variable it is. Imports nothing heavy.
"""

from __future__ import annotations

import linecache
import os
import re
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from unet_dist.wording import first_line, shorten

_OWN = Path(__file__).resolve().parent.parent
_OTHERS = "site-packages"
_TELLING = 4
"""Characters of a value from which its place in a message is no accident."""


def explain_environment(error: BaseException, environment: Mapping[str, str] = os.environ) -> str | None:
    """Name the variable whose value a library refused; None where the failure is another.

    The library's own frames say so: the line that failed, or those of its callers, names the variable, or the message does, or it
    quotes the value. Names without an underscore, such as HOME, occur for other reasons.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or _OWN in Path(frames[-1].filename).parents:
        return None  # our own code read it, or nothing
    others = [frame for frame in frames if _OWN not in Path(frame.filename).parents]
    lines = [_statement(frame) for frame in others]
    given = {name: value for name, value in environment.items() if "_" in name[1:] and value}
    message = str(error)
    for text in (*reversed(lines), message):
        words = set(re.findall(r"\w+", text))
        if found := sorted(given.keys() & words):
            return _sentence(found[0], given[found[0]], error, others)
    found = sorted(name for name, value in given.items() if len(value) >= _TELLING and repr(value) in message)
    return _sentence(found[0], given[found[0]], error, others) if found else None


def _statement(frame: traceback.FrameSummary) -> str:
    """The lines of a call, which may be several."""
    first, last = frame.lineno or 0, frame.end_lineno if hasattr(frame, "end_lineno") else frame.lineno
    return "".join(linecache.getline(frame.filename, number) for number in range(first, (last or first) + 1))


def _sentence(name: str, value: str, error: BaseException, frames: Sequence[traceback.FrameSummary]) -> str:
    paths = (Path(frame.filename).parts for frame in reversed(frames))
    library = next((parts[parts.index(_OTHERS) + 1] for parts in paths if _OTHERS in parts), "Python")
    return (
        f"{name}: {library} cannot use this environment variable's value {shorten(value)!r} "
        f"({type(error).__name__}: {shorten(first_line(error))}). Correct it, or unset it."
    )
