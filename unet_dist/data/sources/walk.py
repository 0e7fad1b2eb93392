"""The files of pictures below a folder.

Owns what counts as a file of the data and what a file system holds beside: hidden folders, copies by links, links that
lead nowhere. The folder of a Zarr array or group counts as a file. Reads no pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from unet_dist.errors import DataError
from unet_dist.imaging.formats import files_beside, image_suffixes, looks_like_image
from unet_dist.imaging.zarr_store import is_zarr
from unet_dist.wording import counted, listed

_BESIDE = {"__MACOSX", "@eaDir", "@Recycle", "@Recently-Snapshot", "#recycle", "$RECYCLE.BIN", "lost+found"}
# fmt: off
UNREAD = (
    ".heic", ".heif", ".jxl", ".exr", ".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".svg", ".jxr",
    ".dcm", ".nii", ".gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".mrc",
    ".czi", ".lif", ".nd2", ".lsm", ".oib", ".oif", ".vsi", ".ims",
    ".h5", ".hdf5", ".hdf", ".nc", ".nc4", ".mat", ".ecw", ".sid", ".grib", ".grb2", ".vrt", ".safetensors", ".pt",
)
# fmt: on
"""Ends of names of pictures, in lower case, that no format of ours reads: a folder that holds some is not read in full."""


def is_hidden(name: str) -> bool:
    """Say whether a name is a system's or a tool's: .ipynb_checkpoints, @eaDir (Synology), __MACOSX."""
    return name.startswith(".") or name in _BESIDE


def folders_of(folder: Path) -> list[Path]:
    """List the folders in a folder that may hold pictures, by name."""
    return [
        path
        for path, entry in _entries(folder)
        if _is_folder(path, entry) and not is_hidden(path.name) and not _is_zarr(path)
    ]


def find_files(folder: Path, suffixes: Iterable[str] | None = None) -> list[Path]:
    """List the pictures below a folder, or the files of these suffixes, by path.

    Raises:
        DataError: links lead nowhere, or back into a folder that is read anyhow.
    """
    allowed = _picture_suffixes() if suffixes is None else set(suffixes)
    broken: list[Path] = []
    found = sorted(_walk(folder, allowed, {folder.resolve()}, broken))
    if broken:
        named = listed((f"{path} -> {os.readlink(path)}" for path in broken), 10)
        raise DataError(
            f"{folder}: {counted(len(broken), 'broken link')}: {named}. Fetch the "
            "contents (git annex get, dvc pull, or mount the disk), or remove the links."
        )
    return found


def first_picture(folder: Path) -> Path | None:
    """Give one picture below a folder, None where there is none."""
    return next(_walk(folder, _picture_suffixes(), {folder.resolve()}, []), None)


def files_below(path: Path) -> list[Path]:
    """Give a file and what it is made of beside (ENVI), or all files of the folder of a Zarr."""
    if not path.is_dir():
        return [path, *files_beside(path)]
    return [Path(place, name) for place, _, names in os.walk(path) for name in names]


def is_picture(path: Path) -> bool:
    """Say whether a path is a picture by its name, or a Zarr."""
    return not is_hidden(path.name) and looks_like_image(path)


def _picture_suffixes() -> set[str]:
    return set(image_suffixes()) - {".zarr"}  # that one is a folder's


def _walk(folder: Path, suffixes: Iterable[str], seen: set[Path], broken: list[Path]) -> Iterator[Path]:
    for path, entry in _entries(folder):
        if is_hidden(path.name):
            continue
        if entry.is_symlink() and not path.exists():
            broken.append(path)
        elif not _is_folder(path, entry):
            if path.suffix.lower() in suffixes:
                yield path
        elif _is_zarr(path):
            yield path
        else:
            place = path.resolve()
            if place in seen:
                raise DataError(
                    f"{path}: a link leads to {place} a second time, so that its pictures would count twice. Remove the link."
                )
            seen.add(place)
            yield from _walk(path, suffixes, seen, broken)


def _entries(folder: Path) -> list[tuple[Path, os.DirEntry[str]]]:
    """What lies in a folder, by name; an entry knows whether it is a folder without a look at the disk."""
    with os.scandir(folder) as found:
        return sorted(((folder / entry.name, entry) for entry in found), key=lambda one: one[1].name)


def _is_folder(path: Path, entry: os.DirEntry[str]) -> bool:
    return path.is_dir() if entry.is_symlink() else entry.is_dir()


def _is_zarr(path: Path) -> bool:
    return path.suffix == ".zarr" or is_zarr(path)
