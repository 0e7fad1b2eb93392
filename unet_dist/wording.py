"""Small pieces of sentences: amounts and texts as people read them.

Owns turning a number or somebody else's text into words that fit a line. Knows nothing of what they are about.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable


def shorten(text: str, length: int = 200) -> str:
    """A text of at most `length` characters, its middle left out where it is longer.

    >>> shorten("a long name", 7)
    'a l...e'
    """
    if len(text) <= length:
        return text
    tail = (length - 3) // 3
    return f"{text[: length - 3 - tail]}...{text[len(text) - tail :]}"


def first_line(error: BaseException) -> str:
    """The first line of what another library says of an error, without its full stop; its type where it says nothing.

    >>> first_line(ValueError(" no such file.\\nat line 3"))
    'no such file'
    """
    lines = str(error).strip().splitlines()
    return shorten(lines[0].rstrip(".")) if lines else type(error).__name__


def listed(names: Iterable[str], most: int = 5) -> str:
    """The first of some names, each shortened, and how many more there are.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(shorten, names[:most])) + more


def counted(number: int, noun: str, plural: str = "s") -> str:
    """A number of things.

    >>> counted(1, "tile"), counted(1200, "tile"), counted(2, "process", "es")
    ('1 tile', '1,200 tiles', '2 processes')
    """
    return f"{number:,} {noun}{plural * (number != 1)}"


def size(num_bytes: float) -> str:
    """Bytes as people read them.

    >>> size(1.5 * 2**30), size(2**21), size(300)
    ('1.50 GiB', '2.0 MiB', '0.3 KiB')
    """
    if num_bytes >= 2**30:
        return f"{num_bytes / 2**30:,.2f} GiB"
    return f"{num_bytes / 2**20:,.1f} MiB" if num_bytes >= 2**20 else f"{num_bytes / 2**10:,.1f} KiB"


def duration(seconds: float) -> str:
    """Seconds as people read them.

    >>> duration(42.3), duration(200), duration(7500)
    ('42 s', '3 min 20 s', '2 h 05 min')
    """
    if not math.isfinite(seconds):
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def printable(text: str) -> str:
    """Somebody else's text without what a terminal obeys: control characters and escapes stand there as what they are.

    >>> printable("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    return "".join(one if one.isprintable() or one in "\n\t " else ascii(one)[1:-1] for one in text)


def one_line(text: str) -> str:
    """The same on one line, as a cell of a table holds it.

    >>> one_line("a\\n  b\\x07")
    'a b\\\\x07'
    """
    return printable(re.sub(r"\s+", lambda blanks: blanks[0] if blanks[0].splitlines() == [blanks[0]] else " ", text))


def hanging(text: str) -> str:
    """The same with its further lines moved in, so that none that somebody else's name begins looks like one of ours.

    >>> hanging("a\\nunet-dist: b\\n  c")
    'a\\n  unet-dist: b\\n  c'
    """
    return re.sub(r"\n(?=\S)", "\n  ", printable(text))


def markdown(text: str) -> str:
    """Somebody else's text as Markdown shows it, in a cell of a table too: no HTML, no link, no line of its own.

    >>> markdown("<b>a|b</b> [x](y)")
    '&lt;b&gt;a\\\\|b&lt;/b&gt; \\\\[x\\\\](y)'
    """
    import html  # its table of names is as large as the rest of this file's imports

    shown = html.escape(" ".join(printable(text).split()), quote=False)
    shown = re.sub(r"([\\`*\[\]|])", r"\\\1", shown)
    return re.sub(
        r"(?i)\b(https?|ftp)://|\bwww\.", lambda found: found[0].replace(":", "&#58;").replace(".", "&#46;"), shown
    )


def make_unique(names: list[str]) -> list[str]:
    """Number the second and later occurrences of a name; the others stay.

    >>> make_unique(["a", "b", "a", "a"])
    ['a', 'b', 'a~2', 'a~3']
    """
    given, taken, occurrences = set(names), set[str](), Counter[str]()
    unique: list[str] = []
    for name in names:
        candidate = name
        while candidate in taken or (candidate != name and candidate in given):
            occurrences[name] += 1
            candidate = f"{name}~{occurrences[name] + 1}"
        taken.add(candidate)
        unique.append(candidate)
    return unique
