"""The strings under the fields of a dataclass: the one place where the meaning of a key is written.

Owns reading them from the source, as Python keeps no string that stands under a field.
"""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache


def meanings_of(section: type) -> dict[str, str]:
    """The meaning of each field of a dataclass, its bases' included, as one line each."""
    found: dict[str, str] = {}
    for one in reversed(section.__mro__):
        found |= _read(one.__module__).get(one.__qualname__, {})
    return found


@cache
def _read(module: str) -> dict[str, dict[str, str]]:
    """The strings under the annotated names of each class of a module."""
    if module == "builtins":
        return {}
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return {node.name: dict(_strings_under_names(node)) for node in classes}


def _strings_under_names(node: ast.ClassDef) -> list[tuple[str, str]]:
    pairs = zip(node.body, node.body[1:], strict=False)
    return [
        (field.target.id, " ".join(str(text.value.value).split()))
        for field, text in pairs
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    ]
