"""Proves that a word leads to a part: ours, an installed package's or an import path's; and that a wrong one is answered."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from unet_dist.errors import CheckpointError, ConfigError
from unet_dist.registry import Registry, Word, parse_word, require_trusted


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the search path; what another test imported as their_shapes is forgotten."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "their_shapes", raising=False)
    return tmp_path


def shapes() -> Registry[object]:
    return Registry("shape", "unet_dist.test_shapes", {"path": "pathlib:Path", "round": "builtins:round"})


def offer(folder: Path, distribution: str, line: str) -> None:
    """What `pip install` leaves behind of a package with one entry point."""
    info = folder / f"{distribution}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[unet_dist.test_shapes]\n{line}\n")


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("dice", "dice", {}),
        (" a.b:c ", "a.b:c", {}),
        ("a:b(width=8, names=['x', 'y'], deep={'k': 1e-3}, no=None)", "a:b",
         {"width": 8, "names": ["x", "y"], "deep": {"k": 1e-3}, "no": None}),
        ("a:b()", "a:b", {}),
    ],
)  # fmt: skip
def test_reads_names_and_arguments(text: str, name: str, arguments: dict[str, object]) -> None:
    assert parse_word("loss", text) == Word(name, arguments)


@pytest.mark.parametrize(
    "text", ["a:b(8)", "a:b(width=f())", "a:b(width=8", "a:b(**{})", "a:b(x=1)(y=2)", "a:b(x=1) + 2"]
)
def test_refuses_other_brackets(text: str) -> None:
    with pytest.raises(ConfigError, match=r"loss: got .*key=value.*a:b\(alpha=0\.3"):
        parse_word("loss", text)


def test_leads_to_our_own_part_and_calls_it_with_what_it_takes() -> None:
    assert shapes().load("path") is Path
    assert shapes().build("round(number=3.7)") == 4
    assert shapes().build("round(number=3.75)", {"ndigits": 1, "colour": "red"}) == 3.8


def test_leads_to_an_import_path_without_importing_before(folder: Path) -> None:
    (folder / "their_shapes.py").write_text("class Round:\n    size = 3\n")
    assert shapes().find("their_shapes:Round.size") == "their_shapes:Round.size"
    assert "their_shapes" not in sys.modules
    assert shapes().load("their_shapes:Round.size") == 3


def test_leads_to_an_installed_package(folder: Path) -> None:
    (folder / "their_shapes.py").write_text("square = 4\n")
    offer(folder, "theirs", "square = their_shapes:square")
    assert shapes().names() == ["path", "round", "square"]
    assert "their_shapes" not in sys.modules
    assert shapes().load("square") == 4


def test_two_packages_of_one_name_are_named(folder: Path) -> None:
    offer(folder, "theirs", "square = their_shapes:square")
    offer(folder, "others", "square = other_shapes:square")
    with pytest.raises(ConfigError, match=r"(?s)theirs \(their_shapes:square\).*by its import path") as caught:
        shapes().load("square")
    assert "others (other_shapes:square)" in str(caught.value)


def test_the_folder_it_is_started_in_counts_last(tmp_path: Path) -> None:
    (tmp_path / "their_shapes.py").write_text("square = 4\n")
    (tmp_path / "colorsys.py").write_text(
        "raise RuntimeError('a file of the same name must not stand in for the library')\n"
    )
    code = "import sys; sys.path.remove(''); from unet_dist.registry import import_part; " \
        "print(import_part('shape', 'their_shapes:square'), import_part('shape', 'colorsys:ONE_SIXTH') < 1)"  # fmt: skip
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["4", "True"]


@pytest.mark.parametrize(
    ("source", "word", "sentence"),
    [
        ("", "sqare", r"shape: got 'sqare', expected one that exists, or .* my_package\.my_module:name\. Valid: path, round\."),
        ("", "no_such_package.a:b", r"there is no package no_such_package.*start in the folder"),
        ("", "their_shapes.sub:b", r"their_shapes.sub:b cannot be imported: the package their_shapes has no module"),
        ("square = 4", "their_shapes:sqare", r"there is no sqare in their_shapes\. Did you mean \"square\"\?"),
        ("a = 1\nb = c\n", "their_shapes:a", r"NameError: name 'c' is not defined \(.*their_shapes\.py, line 2\)"),
        ("def f(:\n", "their_shapes:f", r"SyntaxError: .*\(.*their_shapes\.py, line 1\)"),
        ("\nimport no_such_library\n", "their_shapes:f", r"No module named 'no_such_library' \(.*their_shapes\.py, line 2\)"),
    ],
)  # fmt: skip
def test_a_failure_names_the_package_and_the_line(folder: Path, source: str, word: str, sentence: str) -> None:
    (folder / "their_shapes.py").write_text(source)
    with pytest.raises(ConfigError, match=sentence):
        shapes().load(word)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("their_shapes:circle(radios=2)", r"circle\(radius, \*, filled=False\) does not fit.*radios|missing"),
        ("their_shapes:circle", r"missing a required argument: 'radius'.*their_shapes:circle\(name=value\)"),
        ("their_shapes:PI", r"their_shapes:PI is a float\. Expected a function or a class"),
    ],
)
def test_arguments_that_do_not_fit_are_answered(folder: Path, word: str, sentence: str) -> None:
    (folder / "their_shapes.py").write_text("PI = 3.1\ndef circle(radius, *, filled=False):\n    return radius\n")
    with pytest.raises(ConfigError, match=sentence):
        shapes().build(word)


def test_a_folder_imports_nothing_unless_its_package_is_trusted() -> None:
    require_trusted("their_shapes.nets:make", ["their_shapes"], "config.json")
    require_trusted("their_shapes.nets:make", ["other", "their_shapes.nets"], "config.json")
    for trust in ([], ["their"], ["their_shapes.ne"], ["their_shapes.nets.more"]):
        with pytest.raises(CheckpointError, match=r"config\.json needs their_shapes\.nets:make.*--trust their_shapes "):
            require_trusted("their_shapes.nets:make", trust, "config.json")
