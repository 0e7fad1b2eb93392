"""How images and masks lie in folders, as four keys.

Owns the patterns of folders and names, and the folders of splits. Reads names only.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from unet_dist.data.sources.splits import canonical_split, check_split_folders, looks_like_split
from unet_dist.data.sources.walk import find_files, first_picture, folders_of, is_picture
from unet_dist.errors import DataError
from unet_dist.wording import counted

SPLIT = "{split}"

Template = tuple[str, ...]
"""Folders on a way, with {split} for the split, and * for any."""


@dataclass(frozen=True)
class Layout:
    """Where images and masks lie below the root, and how their names differ."""

    images_folder: str = "images"
    """{split} stands for a split, and * behind it for folders that images share with their masks."""
    masks_folder: str = "masks"
    image_names: str = "*"
    """Names of images; * is the part that they share with their masks, {split} the split's word. An extension may follow."""
    mask_names: str = "*"

    def spell(self) -> str:
        """Write the keys that say the same."""
        return " ".join(f"--{key} '{value}'" for key, value in asdict(self).items() if value != "*")

    def describe_names(self) -> str:
        """How the names of an image and its mask belong together, a sentence."""
        if self.image_names == self.mask_names == "*":
            return "An image and its mask have the same name but for the extension."
        return f"The image {self.image_names} has the mask {self.mask_names}, where * is the same in both."

    @property
    def is_usual(self) -> bool:
        """Whether this is images/ and masks/ with names alike."""
        return self == Layout()

    def places(self, root: Path) -> tuple[dict[str, Path], dict[str, Path]]:
        """Give the folder of the images and that of the masks of each split; "" where there are no splits.

        Raises:
            DataError: folders are missing, or some look like splits and are none.
        """
        for key in ("images_folder", "masks_folder"):
            told = Path(getattr(self, key))
            if told.is_absolute() or ".." in told.parts:
                raise DataError(f"{key}: got {told}, expected a folder below data_path ({root}). Name a folder there.")
        (images_head, images_inside), (masks_head, masks_inside) = self._cut
        if len(images_inside) != len(masks_inside) or SPLIT in "/".join((*images_inside, *masks_inside)):
            raise DataError(
                f"images_folder and masks_folder: got {self.images_folder} and {self.masks_folder}, expected a * in both, with "
                "as many folders behind it and {split} before it."
            )
        images = _places(root, images_head, masks_head)
        masks = _places(root, masks_head, images_head)
        if "" in images and "" not in masks and len(images) == 1:
            masks = {"": root / masks_head}
        for split, folder in masks.items():
            if split not in images and first_picture(folder):
                raise DataError(
                    f"{folder}: there is no {_with_split(self.images_folder, folder.name)} for these masks. Name both alike."
                )
        for split, folder in images.items():
            if split not in masks:
                name = (
                    _name_in(folder.relative_to(root).as_posix(), self.images_folder)
                    if SPLIT in self.images_folder
                    else None
                )
                missing = root / _with_split(self.masks_folder, name or folder.name)
                raise DataError(
                    f"{missing}: there is no such folder for the masks of {folder}. Put the masks there; or move images without "
                    "masks out of the data set: predict labels them."
                )
        if len({folder.resolve() for folder in images.values()}) < len(images):
            raise DataError(f"{root}: two of its splits are one folder by a link. Remove the link.")
        return images, masks

    def find(self, images: Path, masks: Path) -> tuple[dict[str, Path], dict[str, Path]]:
        """Give the images and the masks of two folders by the path that they share."""
        (_, of_images), (_, of_masks) = self._cut
        image_names = self.image_names.replace(SPLIT, _word_of(images, self._cut[0][0]))
        mask_names = self.mask_names.replace(SPLIT, _word_of(masks, self._cut[1][0]))
        image_files = by_name(images, image_names, inside=of_images)
        mask_files = by_name(masks, mask_names, inside=of_masks)
        if images.resolve() == masks.resolve() and of_images == of_masks:
            if self.image_names == self.mask_names:
                raise DataError(
                    f"{images}: it holds images and masks. Say how their names differ: --mask_names '*_mask'."
                )
            narrow, wide = (mask_files, image_files) if self.image_names == "*" else (image_files, mask_files)
            taken = set(narrow.values())
            for name in [name for name, path in wide.items() if path in taken]:
                del wide[name]
        return image_files, mask_files

    @property
    def has_folders(self) -> bool:
        """Whether images share folders with their masks, which * stands for."""
        return bool(self._cut[0][1])

    @property
    def _cut(self) -> tuple[tuple[str, Template], tuple[str, Template]]:
        """Cut the folders of images and of masks before the first *: the fixed part, and the folders from there on."""
        return _cut_at_star(self.images_folder), _cut_at_star(self.masks_folder)

    def masks_beside(self, files: Sequence[Path]) -> list[Path]:
        """List those of the files of one folder that are masks by their names and have their image beside them.

        >>> layout = Layout(".", ".", mask_names="*_mask")
        >>> [path.name for path in layout.masks_beside([Path("x.png"), Path("x_mask.png"), Path("y_mask.png")])]
        ['x_mask.png']
        """
        if self.image_names == self.mask_names:
            return []
        images: dict[str | None, set[Path]] = {}
        for path in files:
            images.setdefault(shared_part(path, self.image_names), set()).add(path)
        masks = [(path, part) for path in files if (part := shared_part(path, self.mask_names)) is not None]
        return [path for path, part in masks if images.get(part, set()) - {path}]


def shared_part(path: Path, pattern: str) -> str | None:
    """Give the part of a file's name that stands for the * of a pattern, None where the name does not fit.

    >>> shared_part(Path("a/x_mask.png"), "*_mask")
    'x'
    """
    tail = pattern.partition("*")[2]
    with_extension = bool(re.search(r"\.\w+$", tail)) and is_picture(Path("x" + tail))
    is_plain_folder = path.suffix != ".zarr" and path.is_dir()
    name = path.name if with_extension or is_plain_folder else path.stem
    return part_of(name, pattern)


def part_of(name: str, pattern: str) -> str | None:
    """Give the part of a name that stands for the * of a pattern, None where the name does not fit."""
    head, _, tail = pattern.partition("*")
    if len(name) <= len(head) + len(tail) or not (name.startswith(head) and name.endswith(tail)):
        return None
    return name[len(head) : len(name) - len(tail)]


def by_name(
    folder: Path, pattern: str, suffixes: Collection[str] | None = None, *, inside: Template = ()
) -> dict[str, Path]:
    """Give the files below a folder whose names fit a pattern by the path that the pattern leaves of them.

    Args:
        inside: folders on the way to them, of which * is any and remains in that path.

    Raises:
        DataError: two files have the same.
    """
    found: dict[str, Path] = {}
    for path in find_files(folder, suffixes):
        part = shared_part(path, pattern)
        if part is None:
            continue
        *way, _ = path.relative_to(folder).parts
        if len(way) < len(inside) or any(told not in ("*", there) for told, there in zip(inside, way, strict=False)):
            continue
        kept = [there for told, there in zip(inside, way, strict=False) if told == "*"]
        shared = PurePosixPath(*kept, *way[len(inside) :], part)
        key = unicodedata.normalize("NFC", shared.as_posix())  # a Mac's names, and those of others
        if key in found:
            raise DataError(f"{path}: {found[key].name} beside it has the same name. Keep one of the two.")
        found[key] = path
    return found


def _cut_at_star(folder: str) -> tuple[str, Template]:
    parts = folder.split("/")
    place = next((place for place, part in enumerate(parts) if "*" in part), len(parts))
    return "/".join(parts[:place]) or ".", tuple(parts[place:])


def _places(root: Path, folder: str, other: str) -> dict[str, Path]:
    if SPLIT not in folder:
        place = root / folder
        if not place.is_dir():
            raise DataError(f"{place}: there is no such folder. Correct images_folder or masks_folder.")
        folders = folders_of(place)
        if not check_split_folders(place, [path.name for path in folders]):
            for path in (deeper for first in folders for deeper in folders_of(first)):
                if looks_like_split(path.name):
                    raise DataError(
                        f"{path}: this folder looks like a split, inside a folder that is none. Put the splits on top, as "
                        f"{folder}/{path.name}, or rename it."
                    )
            return {"": place}
        loose = [path for path in place.iterdir() if path not in folders and is_picture(path)]
        if loose:
            raise DataError(
                f"{place}: it has folders of splits ({', '.join(path.name for path in folders)}) and "
                f"{counted(len(loose), 'image')} beside them, such as {loose[0].name}. Put every image into a split, or none."
            )
        return {canonical_split(path.name): path for path in folders}
    head, _, tail = folder.partition(SPLIT)
    other_head, _, other_tail = other.partition(SPLIT)
    names = {}
    for path in root.glob(f"{head}*{tail}"):
        text = path.relative_to(root).as_posix()
        name = _name_in(text, folder)
        belongs_to_other = (
            other != folder and SPLIT in other and text.startswith(other_head) and text.endswith(other_tail)
        )
        if path.is_dir() and not name.startswith(".") and not (belongs_to_other and len(other) > len(folder)):
            names[name] = path
    if not names or not check_split_folders(root, names):
        raise DataError(
            f"{root}: {folder} fits no folder of train, val or test. Correct images_folder or masks_folder."
        )
    return {canonical_split(name): path for name, path in names.items()}


def _word_of(folder: Path, template: str) -> str:
    """Give the word that stands for the split on the way to a folder that fits a template."""
    for part, told in zip(reversed(folder.parts), reversed(template.split("/")), strict=False):
        if SPLIT in told:
            return _name_in(part, told)
    return folder.name


def _name_in(path: str, folder: str) -> str:
    """Give what stands for the split in a path that fits a folder's pattern."""
    head, _, tail = folder.partition(SPLIT)
    return path[len(head) : len(path) - len(tail)]


def _with_split(folder: str, split: str) -> str:
    return folder.replace(SPLIT, split) if SPLIT in folder else f"{folder}/{split}"
