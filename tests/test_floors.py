"""Proves the house rules of imports: arrows go up only, some libraries are behind one door, the package loads lightly.

The checker reads the sources by ast, nested and type-only imports included, and is itself tried on sources that break
each rule.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "unet_dist"

# From the top of the house down. A name is a module, or a folder with all that is in it. A module imports from floors
# above its own, and on its own floor without a circle. A new module needs a place here.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "wording"),
    ("registry",),
    ("storage", "machine", "config"),
    ("command_line", "templates"),
    ("tiling.geometry", "tiling.crop_plan"),
    # one process: rank and world size are plain arguments
    ("imaging", "scenes"),
    ("models",),
    ("data.sources",),
    ("data.decoded",),
    ("data.batches",),
    ("tiling",),
    ("losses", "metrics"),
    ("terminal", "runs"),
    # processes
    ("processes",),
    ("training",),
    ("planner",),
    ("prediction",),
    ("report", "export", "demo"),
    ("debug",),
    ("testing", "contracts"),
    ("assembly",),
    ("benchmark",),
    # composition roots
    ("commands",),
    ("cli",),
    ("__main__",),
)

# Libraries that only these modules may import.
OWNERS: dict[str, tuple[str, ...]] = {
    "accelerate": ("processes.group",),
    "torch.distributed": ("processes",),
    "torch.nn.parallel": ("processes.group",),
    "albumentations": ("data.batches.augment", "benchmark.baseline"),
}


def is_within(name: str, prefix: str) -> bool:
    """Tell whether a dotted name is the prefix or lies below it."""
    return name == prefix or name.startswith(prefix + ".")


def floor_of(module: str) -> int | None:
    """Return the floor of the longest name that holds the module, None where none does."""
    places = [(len(name), floor) for floor, names in enumerate(FLOORS) for name in names if is_within(module, name)]
    return max(places)[1] if places else None


@cache
def read_modules(package: Path) -> dict[str, ast.Module]:
    """Map each module's dotted name below the package ("tiling.geometry"; a folder for its __init__) to its tree."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules[name] = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return modules


def imported_names(tree: ast.AST, package_name: str) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of every import, wherever it stands; `from a import b` yields a.b, module or not."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import; write from {package_name}... instead"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def arrows(modules: dict[str, ast.Module], package_name: str) -> Iterator[tuple[str, int, str]]:
    """Yield (importing module, line, imported module) for imports within the package."""
    for module, tree in modules.items():
        for line, name in imported_names(tree, package_name):
            if not is_within(name, package_name) or name == f"{package_name}.__version__":  # a string, and no import
                continue
            target = name[len(package_name) + 1 :]
            while target not in modules:  # a name in a module, not a module: from unet_dist.errors import DataError
                target = target.rpartition(".")[0]
            yield module, line, target


def broken_floors(modules: dict[str, ast.Module], package_name: str) -> list[str]:
    """List, as sentences, the modules without a floor and the imports that go down or around."""
    broken = [
        f"{module} has no floor: give it one in tests/test_floors.py"
        for module in modules
        if module
        and floor_of(module) is None
        and not any(is_within(name, module) for names in FLOORS for name in names)
    ]
    own_floor: dict[str, set[str]] = {}
    for module, line, target in arrows(modules, package_name):
        here, there = floor_of(module), floor_of(target)
        if here is None or there is None:
            if module and not target:
                broken.append(f"{module}:{line} imports the package itself, which loads everything")
            continue
        if there > here:
            broken.append(f"{module}:{line} imports {target}, which is on a lower floor")
        elif there == here and target != module:
            own_floor.setdefault(module, set()).add(target)
    broken.extend(f"circle: {' -> '.join(circle)}" for circle in circles(own_floor))
    return broken


def circles(graph: dict[str, set[str]]) -> list[tuple[str, ...]]:
    """Find a closed path from each node that has one."""
    found = []
    for start in sorted(graph):
        paths: list[tuple[str, ...]] = [(start,)]
        seen: set[str] = set()
        while paths:
            path = paths.pop()
            for target in sorted(graph.get(path[-1], ())):
                if target == start:
                    found.append((*path, start))
                    paths.clear()
                    break
                if target not in seen:
                    seen.add(target)
                    paths.append((*path, target))
    return found


def strangers(modules: dict[str, ast.Module], package_name: str) -> list[str]:
    """List, as sentences, imports of a library by a module that does not own it."""
    found = []
    for module, tree in modules.items():
        names = list(imported_names(tree, package_name))
        names += [(node.lineno, _dotted(node)) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
        for library, owners in OWNERS.items():
            lines = sorted({line for line, name in names if is_within(name, library)})
            if lines and not any(is_within(module, owner) for owner in owners):
                found.append(f"{module}:{lines[0]} uses {library}, which is behind {' and '.join(owners)}")
    return found


def _dotted(node: ast.expr) -> str:
    """`a.b.c` of an attribute, and "" before the first dot where that is no name."""
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def test_imports_go_up() -> None:
    assert not broken_floors(read_modules(PACKAGE), "unet_dist")


def test_libraries_stay_behind_their_door() -> None:
    assert not strangers(read_modules(PACKAGE), "unet_dist")


# Files that have outgrown one idea, with the lines they may have: the list may only shrink.
LONG: dict[str, int] = {}


def test_a_file_is_one_idea() -> None:
    lines = {
        path.relative_to(PACKAGE).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in PACKAGE.rglob("*.py")
    }
    assert {name: count for name, count in lines.items() if count > LONG.get(name, 400)} == {}
    assert [name for name in LONG if lines[name] <= 400] == []


def test_few_modules_stand_loose() -> None:
    assert len([path for path in PACKAGE.glob("*.py") if not path.name.startswith("__")]) <= 8


def test_package_files_are_empty_but_the_top_one() -> None:
    full = [
        path for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE and path.read_text(encoding="utf-8")
    ]
    assert not full


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ({"config": "from unet_dist.models.unet import UNet", "models.unet": ""}, "config:1 imports models.unet"),
        (
            {"config": "def f():\n    import unet_dist.data.decoded.cache", "data.decoded.cache": ""},
            "config:2 imports data.decoded.cache",
        ),
        (
            {"tiling.geometry": "from unet_dist.tiling import gradient", "tiling.gradient": ""},
            "tiling.geometry:1 imports",
        ),
        (
            {"losses": "import unet_dist.metrics", "metrics": "import unet_dist.losses"},
            "circle: losses -> metrics -> losses",
        ),
        ({"training": "from unet_dist import UNet", "": ""}, "training:1 imports the package itself"),
        ({"stray": ""}, "stray has no floor"),
    ],
)
def test_checker_sees_a_broken_floor(source: dict[str, str], complaint: str) -> None:
    broken = broken_floors({name: ast.parse(text) for name, text in {"": "", **source}.items()}, "unet_dist")
    assert len([sentence for sentence in broken if complaint in sentence]) == 1, broken


@pytest.mark.parametrize(
    "source", ["import accelerate", "from torch import distributed", "import torch\nx = torch.distributed.get_rank()"]
)
def test_checker_sees_a_stranger(source: str) -> None:
    assert strangers({"metrics": ast.parse(source)}, "unet_dist")
    assert not strangers({"processes.group": ast.parse(source)}, "unet_dist")


def test_checker_lets_good_imports_pass() -> None:
    source = {
        "": "",
        "errors": "import json",
        "losses": "import torch.nn.functional",
        "metrics": "from unet_dist.errors import DataError\nfrom unet_dist.losses import f",
    }
    modules = {name: ast.parse(text) for name, text in source.items()}
    assert not broken_floors(modules, "unet_dist")
    assert not strangers(modules, "unet_dist")


# Each of these takes a tenth of a second or more to load; the command line answers --help in less than half of one.
HEAVY = ("torch", "numpy", "accelerate", "albumentations", "datasets", "PIL", "matplotlib", "tensorboard", "rich")


def test_import_of_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, unet_dist; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
