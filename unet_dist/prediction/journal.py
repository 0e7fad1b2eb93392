"""What of a prediction is done, so that one killed at any instant resumes where it stopped.

Owns the folder beside the outputs: which settings the work belongs to, which batches and images are finished, and the
rasters in the making. A batch stands in the journal only when its values are on the disk. Must not know how they are made.

    .unet-dist-predict/settings.json     what the values depend on; the folder counts only with it
                       done.txt          finished before this launch
                       done-00000.txt    finished by process 0 since: lines such as "batch 12 17=1a2b3c4d ~5e6f7a8b", a checksum of
                                         the written pixels of each image, and one of the line
                       stop              a process of this launch was asked to stop
                       00000017.labels   raster of image 17 in the making (imaging/scratch.py)
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from unet_dist.errors import ConfigError, DataError
from unet_dist.storage.files import append_to, sync_folder, write_whole
from unet_dist.storage.held import held, remove
from unet_dist.storage.refusals import writing_failed
from unet_dist.storage.typed import read_json, read_text
from unet_dist.wording import shorten

FOLDER = ".unet-dist-predict"
_SETTINGS, _DONE, _END, _STOP, _LOCK = "settings.json", "done.txt", "end", "stop", ".lock"
_OURS = re.compile(r"settings\.json|done(-\d{5})?\.txt|stop|\.lock|\d{8,}\.\w+|\.\w+(\.\w+)?\.partial\.(json|txt)")
"""Files that a prediction makes in its folder; done.txt and settings.json by a temporary name."""
_LINE = re.compile(
    r"(?P<text>(?P<kind>batch|image|end)(?: (?P<number>\d{1,15}))?(?P<checks>(?: \d{1,15}=[0-9a-f]{8})*))"
    r"(?: ~(?P<check>[0-9a-f]{8}))?"
)
"""Of older releases without checksums."""

Checks = Mapping[int, int]
"""CRC-32 of what a batch wrote, by image."""


class _Settings(TypedDict, total=False):
    """What of the settings is more than compared."""

    inputs: list[list[str | int]]
    tile_size: int
    num_threads: int


@dataclass
class Done:
    """The finished work.

    Attributes:
        batches: numbers of the batches whose values are in the rasters.
        images: numbers of the images whose outputs stand.
        num_ended: processes of this launch that have no more to compute.
        checks: checksums of what the batches wrote, where they are known.
    """

    batches: set[int] = field(default_factory=set)
    images: set[int] = field(default_factory=set)
    num_ended: int = 0
    checks: dict[int, Checks] = field(default_factory=dict)


class Journal:
    """The journal of the prediction into one folder.

    Args:
        output: folder of the outputs.
    """

    def __init__(self, output: Path) -> None:
        self.folder = output / FOLDER

    def settings(self) -> dict[str, Any] | None:
        """What the unfinished prediction depends on; None where there is none.

        Raises:
            DataError: the journal is damaged.
        """
        path = self.folder / _SETTINGS
        if not os.path.lexists(path):
            return None
        return dict(read_json(path, _Settings, remedy=f"Delete the folder {self.folder} to begin anew."))

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Start afresh, sweeping what an older prediction left.

        Raises:
            DataError: the folder cannot be written to.
        """
        self.require_own()
        try:
            self.folder.mkdir(exist_ok=True)
            with self._held() as folder:
                _sweep(folder, keeps_lock=True)
                content = (json.dumps(settings, indent=1) + "\n").encode()
                write_whole(self.folder / _SETTINGS, content, folder=folder)
        except OSError as error:
            raise writing_failed(self.folder, error) from error

    def require_own(self) -> None:
        """Refuse a folder that is a link: what it leads to is not a prediction's.

        Raises:
            DataError: it is no folder.
        """
        if self.folder.is_symlink() or (self.folder.exists() and not self.folder.is_dir()):
            raise DataError(
                f"{self.folder} is a link or a file, expected the folder that a prediction made. Remove it, or choose "
                "another --output."
            )

    def _held(self) -> AbstractContextManager[int]:
        """Its folder: files are removed from it, and from nowhere else, though its name be a link by now."""
        return held(self.folder, follows=False)

    def require_same(self, settings: Mapping[str, Any]) -> None:
        """Refuse other settings than the unfinished prediction's.

        Raises:
            ConfigError: names the first that differs, old and new.
        """
        old = self.settings()
        assert old is not None, self.folder
        new = json.loads(json.dumps(settings))  # as they read after a round trip
        for key in [*new, *(key for key in old if key not in new)]:
            if old.get(key) != new.get(key):
                raise ConfigError(
                    f"{self.folder.parent} holds an unfinished prediction with {_change(key, old.get(key), new.get(key))}. "
                    f"Give the same settings to resume, or delete {self.folder} to begin anew."
                )

    def done(self) -> Done:
        """Read what all processes have finished; a last line that a kill cut short does not count."""
        done = Done()
        remedy = f"Delete the folder {self.folder} to begin anew."
        for path in sorted(self.folder.glob("done*.txt")):
            for line in read_text(path, remedy=remedy).split("\n")[:-1]:
                found = _LINE.fullmatch(line)
                is_sound = found is not None and found["check"] in (None, _check(found["text"]))
                if found is None or not is_sound or (found["number"] is None) != (found["kind"] == _END):
                    raise DataError(f"{path} is damaged: got the line {shorten(ascii(line), 80)}. {remedy}")
                if found["kind"] == _END:
                    done.num_ended += 1
                elif found["kind"] == "image":
                    done.images.add(int(found["number"]))
                else:
                    number, checks = int(found["number"]), (check.split("=") for check in found["checks"].split())
                    done.batches.add(number)
                    if found["checks"]:
                        done.checks[number] = {int(image): int(value, 16) for image, value in checks}
        return done

    def compact(self, done: Done) -> None:
        """Put one list in place of all processes', before any of them continues: a cut line goes with them, and an old
        wish to stop.

        Raises:
            DataError: the folder cannot be written to.
        """
        try:
            with self._held() as folder:
                remove(_STOP, folder)
                content = "".join(_lines(done.batches, done.images, done.checks)).encode()
                write_whole(self.folder / _DONE, content, folder=folder)
                for name in fnmatch.filter(os.listdir(folder), "done-*.txt"):
                    os.unlink(name, dir_fd=folder)
        except OSError as error:
            raise writing_failed(self.folder, error) from error

    def ask_to_stop(self) -> None:
        """Ask all processes to stop before their next batch."""
        with suppress(OSError):  # who asks stops in any case
            append_to(self.folder / _STOP, "")

    def is_asked_to_stop(self) -> bool:
        """Whether any process was asked to stop."""
        return (self.folder / _STOP).exists()

    def scratch_path(self, image: int, kind: str) -> Path:
        """Where a raster is made."""
        return self.folder / f"{image:08d}.{kind}"

    def remove_scratches(self, image: int, kinds: Iterable[str]) -> None:
        """Delete the rasters of a finished image."""
        with suppress(FileNotFoundError), self._held() as folder:
            for kind in kinds:
                remove(self.scratch_path(image, kind).name, folder)

    def leave(self) -> None:
        """Take the folder away where no prediction has begun in it: its lock made it."""
        if not (self.folder / _SETTINGS).exists():
            self._forget()

    def remove(self) -> None:
        """Forget a finished prediction: first the settings, without which the rest counts for nothing."""
        with suppress(FileNotFoundError), self._held() as folder:
            remove(_SETTINGS, folder)
        self._forget()

    def _forget(self) -> None:
        with suppress(OSError):  # what none of ours made keeps the folder
            with self._held() as folder:
                _sweep(folder)
            self.folder.rmdir()


class DoneList:
    """One process's list of what it finished."""

    def __init__(self, journal: Journal, rank: int) -> None:
        self.path = journal.folder / f"done-{rank:05d}.txt"

    def append(
        self,
        *,
        batches: Iterable[int] = (),
        images: Iterable[int] = (),
        checks: Mapping[int, Checks] | None = None,
        is_end: bool = False,
    ) -> None:
        """Add lines and wait until they are on the disk.

        Args:
            checks: of the batches, what they wrote.

        Raises:
            DataError: the disk refuses.
        """
        text = "".join([*_lines(batches, images, checks or {}), *([_checked(_END)] if is_end else [])])
        is_new = not self.path.exists()
        try:
            append_to(self.path, text, is_synced=True)
            if is_new:
                sync_folder(self.path.parent)
        except OSError as error:
            raise writing_failed(self.path, error) from error


def _sweep(folder: int, *, keeps_lock: bool = False) -> None:
    """Remove the files of predictions; others, which none made, stay."""
    for name in os.listdir(folder):
        if _OURS.fullmatch(name) and not (keeps_lock and name == _LOCK):
            os.unlink(name, dir_fd=folder)


def _lines(batches: Iterable[int], images: Iterable[int], checks: Mapping[int, Checks]) -> list[str]:
    def written(number: int) -> str:
        return "".join(f" {image}={check:08x}" for image, check in sorted(checks.get(number, {}).items()))

    lines = [_checked(f"batch {number}{written(number)}") for number in sorted(batches)]
    return lines + [_checked(f"image {number}") for number in sorted(images)]


def _checked(text: str) -> str:
    return f"{text} ~{_check(text)}\n"


def _check(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def _change(key: str, old: Any, new: Any) -> str:
    if key == "inputs":
        before, after = ({entry[0]: entry[1:] for entry in entries if entry} for entries in (old or [], new or []))
        for path in after:
            if before.get(path) not in (None, after[path]):
                return f"an older {path}, which has changed since"
        apart = sorted(map(str, before.keys() ^ after.keys())) or ["another order of them"]
        return f"other inputs ({apart[0]}{' and more' * (len(apart) > 1)})"
    if key == "model":
        return "another model"
    return f"{key} {_said(old)} -> {_said(new)}"


def _said(value: Any) -> str:
    return json.dumps(value).strip('"')


@contextmanager
def output_folder(output: Path) -> Iterator[None]:
    """Make the folder of the files. One that was made here and stays empty is removed."""
    was_there = output.exists()
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"output: cannot make {output}: {error.strerror}. Choose another --output.") from None
    try:
        yield
    finally:
        if not was_there:
            with suppress(OSError):
                output.rmdir()
