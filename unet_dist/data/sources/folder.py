"""A folder of `images/` and `masks/`.

Owns the matching of files by name; the folder of a Zarr array or group counts as a file. Reads no pixels.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from unet_dist.data.sources.fingerprint import digest_files, digest_text
from unet_dist.data.sources.pairs import RawPair
from unet_dist.data.sources.splits import canonical_split, is_split_name
from unet_dist.errors import DataError
from unet_dist.imaging.formats import looks_like_image
from unet_dist.imaging.zarr_store import is_zarr
from unet_dist.wording import listed

IMAGES, MASKS = "images", "masks"
_MAX_LISTED = 10


class FolderSource:
    """Pairs `images/NAME.EXT` and `masks/NAME.png`, in folders of their own by split or not.

    `images/train/...` and `masks/train/...` (validation, val, test, ...) give splits. Below that, folders may be
    nested; an image and its mask have the same path but for the extension. `id2label.json` may lie beside.
    """

    fixed_shape: tuple[int, int, int] | None = None

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files_root: Path | None = root
        self.name = root.resolve().name

    @property
    def splits(self) -> dict[str, int]:
        return {name: len(pairs) for name, pairs in self._pairs.items()}

    def read_id_names(self) -> dict[int, str] | None:
        return read_id2label(self.root / "id2label.json")

    def read_pair(self, split: str, index: int) -> RawPair:
        stem, image, mask = self._pairs[split][index]
        return RawPair(
            id=stem.replace("/", "-"),
            image=image,
            mask=mask,
            image_name=str(image.relative_to(self.root)),
            mask_name=str(mask.relative_to(self.root)),
        )

    def signature(self, memo_path: Path) -> str:
        paths = [path for pairs in self._pairs.values() for _, image, mask in pairs for path in (image, mask)]
        files = [file for path in paths for file in (_files_below(path) if path.is_dir() else [path])]
        names = self.root / "id2label.json"
        return digest_text(
            "folder", digest_files(self.root, [*files, *([names] if names.is_file() else [])], memo_path)
        )

    @cached_property
    def _pairs(self) -> dict[str, list[tuple[str, Path, Path]]]:
        """(stem, image, mask) by split. Raises: DataError: files without a partner, or two of one name."""
        images, masks = self.root / IMAGES, self.root / MASKS
        folders = sorted(path for path in images.iterdir() if path.is_dir() and not _is_hidden_or_zarr(path))
        if folders and all(is_split_name(folder.name) for folder in folders):
            loose = [path for path in images.iterdir() if path not in folders and looks_like_image(path)]
            if loose:
                raise DataError(
                    f"{images}: it has folders of splits ({', '.join(folder.name for folder in folders)}) and "
                    f"{len(loose)} images beside them, such as {loose[0].name}. Put every image into a split, or none."
                )
            there = [path for path in masks.iterdir() if path.is_dir() and not _is_hidden_or_zarr(path)]
            stray = [path for path in there if not (images / path.name).is_dir()]
            if stray:
                raise DataError(f"{stray[0]}: there is no {IMAGES}/{stray[0].name} for these masks. Name both alike.")
            pairs = {canonical_split(folder.name): _match(folder, masks / folder.name) for folder in folders}
            order = sorted(pairs, key=lambda name: ("train", "validation", "test").index(name))
            if len(pairs) < len(folders):
                raise DataError(
                    f"{images}: two of the folders {', '.join(folder.name for folder in folders)} mean the same split. "
                    "Keep one of them."
                )
            return {name: pairs[name] for name in order}
        return {"train": _match(images, masks)}


def read_id2label(path: Path) -> dict[int, str] | None:
    """Read `{"0": "sky", ...}`, None where there is no such file. Raises: DataError: it is something else."""
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {int(key): str(name) for key, name in stored.items()}
    except (ValueError, AttributeError, OSError) as error:
        raise DataError(
            f'{path}: cannot be read as names of classes ({error}). Expected {{"0": "sky", "1": "road"}}.'
        ) from error


def _match(images: Path, masks: Path) -> list[tuple[str, Path, Path]]:
    if not masks.is_dir():
        raise DataError(f"{masks}: there is no such folder for the masks of {images}. Put the masks there.")
    image_files, mask_files = _by_stem(images), _by_stem(masks)
    without_mask = sorted(str(image_files[stem]) for stem in image_files.keys() - mask_files.keys())
    without_image = sorted(str(mask_files[stem]) for stem in mask_files.keys() - image_files.keys())
    if without_mask or without_image:
        lines = [f"images without a mask: {listed(without_mask, _MAX_LISTED)}"] if without_mask else []
        lines += [f"masks without an image: {listed(without_image, _MAX_LISTED)}"] if without_image else []
        raise DataError(
            "\n  ".join([f"{images.parent}: images and masks do not match.", *lines])
            + "\nAn image and its mask have the same name but for the extension. Rename, add or remove files."
        )
    return [(stem, image_files[stem], mask_files[stem]) for stem in sorted(image_files)]


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(_pictures_below(folder)):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise DataError(f"{path}: {found[stem].name} beside it has the same name. Keep one of the two.")
        found[stem] = path
    return found


def _pictures_below(folder: Path) -> Iterator[Path]:
    """Yield the files of pictures and the folders of Zarr, without a look into the latter."""
    for path in folder.iterdir():
        if looks_like_image(path):
            yield path
        elif path.is_dir():
            yield from _pictures_below(path)


def _files_below(folder: Path) -> list[Path]:
    return [Path(place, name) for place, _, names in os.walk(folder) for name in names]


def _is_hidden_or_zarr(path: Path) -> bool:
    return path.name.startswith(".") or path.suffix == ".zarr" or is_zarr(path)
