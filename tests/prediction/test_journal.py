"""Proves that a journal holds the finished parts and nothing else, and refuses to mix two predictions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from unet_dist.errors import ConfigError, DataError
from unet_dist.prediction.journal import FOLDER, Done, DoneList, Journal

SETTINGS = {"model": "abc", "tile_size": 572, "inputs": [["/in/a.tif", 10, 1], ["/in/b.tif", 20, 1]], "flip": False}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal(tmp_path)
    assert journal.settings() is None
    journal.begin(SETTINGS)
    return journal


def test_lists_of_all_processes_count_and_cut_lines_do_not(journal: Journal) -> None:
    DoneList(journal, 0).append(batches=[3, 12], images=[1])
    DoneList(journal, 1).append(batches=[4], is_end=True)
    with DoneList(journal, 1).path.open("a") as file:
        file.write("batch 12")  # of batch 123
    assert journal.done() == Done({3, 4, 12}, {1}, 1)
    journal.compact(journal.done())
    assert journal.done() == Done({3, 4, 12}, {1}, 0), "the ends of an earlier launch are forgotten"
    DoneList(journal, 1).append(batches=[5])
    assert journal.done().batches == {3, 4, 5, 12}, "a new line is not glued to a cut one"


def test_beginning_anew_sweeps_and_removing_leaves_nothing(journal: Journal) -> None:
    DoneList(journal, 0).append(batches=[1])
    journal.scratch_path(0, "labels").touch()
    journal.begin(SETTINGS)
    assert journal.done() == Done()
    assert [path.name for path in journal.folder.iterdir()] == ["settings.json"]
    journal.remove()
    assert not journal.folder.exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tile_size": 572}, None),
        ({"tile_size": 1100}, "tile_size 572 -> 1100"),
        ({"flip": True}, "flip false -> true"),
        ({"model": "abd"}, "another model"),
        ({"inputs": [["/in/a.tif", 10, 2], ["/in/b.tif", 20, 1]]}, "an older /in/a.tif, which has changed since"),
        ({"inputs": [["/in/a.tif", 10, 1]]}, r"other inputs \(/in/b.tif\)"),
        ({"inputs": SETTINGS["inputs"][::-1]}, r"other inputs \(another order of them\)"),  # type: ignore[index]
    ],
)
def test_other_settings_are_refused_by_name(journal: Journal, changes: dict, sentence: str | None) -> None:
    if sentence is None:
        journal.require_same(SETTINGS | changes)
        return
    remedy = f"Give the same settings to resume, or delete {journal.folder} to begin anew."
    with pytest.raises(ConfigError, match=f"holds an unfinished prediction with {sentence}. {remedy}"):
        journal.require_same(SETTINGS | changes)


def test_a_damaged_journal_is_a_sentence(journal: Journal) -> None:
    (journal.folder / "settings.json").write_text("{")
    with pytest.raises(DataError, match=f"Delete the folder .*{FOLDER} to begin anew"):
        journal.settings()


@pytest.mark.parametrize(
    ("damage", "place"),
    [
        (lambda line: line.replace(b"image 1", b"image 2"), "image 2"),
        (lambda line: b"\xff" + line, "cannot be read"),
        (lambda line: b"batch \n", "'batch '"),
        (lambda line: b"image " + b"9" * 5000 + b"\n", "image 999"),
    ],
)
def test_a_damaged_list_is_a_sentence(journal: Journal, damage: Callable[[bytes], bytes], place: str) -> None:
    path = DoneList(journal, 0).path
    DoneList(journal, 0).append(images=[1])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=f"{place}.*Delete the folder .*{FOLDER} to begin anew"):
        journal.done()


def test_settings_of_another_type_are_refused_by_their_place(journal: Journal) -> None:
    (journal.folder / "settings.json").write_text('{"inputs": [["/in/a.tif", 10, 1], "x"]}')
    with pytest.raises(DataError, match=r"settings.json: inputs\[1\]: got 'x', expected a list"):
        journal.settings()


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="could not be written: Not a directory"):
        Journal(tmp_path / "file").begin({})


def test_folder_that_is_a_link_is_refused_and_its_target_stays(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "thesis.txt").write_text("thesis")
    journal = Journal(tmp_path)
    journal.folder.symlink_to(victim)
    for act in (journal.require_own, lambda: journal.begin({"version": 1})):
        with pytest.raises(DataError) as refusal:
            act()
        assert str(refusal.value) == (
            f"{journal.folder} is a link or a file, expected the folder that a prediction made. Remove it, or choose another "
            "--output."
        )
    assert [path.name for path in victim.iterdir()] == ["thesis.txt"]


def test_only_files_of_predictions_are_removed(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.begin({"version": 1})
    DoneList(journal, 0).append(batches=[1], images=[0], is_end=True)
    journal.scratch_path(3, "labels").touch()
    journal.compact(journal.done())
    foreign = journal.folder / "thesis.txt"
    foreign.write_text("thesis")
    journal.begin({"version": 1})
    assert {path.name for path in journal.folder.iterdir()} == {"settings.json", "thesis.txt"}
    journal.remove()
    assert [path.name for path in journal.folder.iterdir()] == ["thesis.txt"]
    foreign.unlink()
    journal.leave()
    assert not journal.folder.exists()
