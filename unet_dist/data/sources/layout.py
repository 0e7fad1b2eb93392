"""How images and masks lie in folders, as four keys, and a guess at them.

Owns the patterns of names, what well-known data sets look like, and the folders of splits. Reads names only.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from unet_dist.data.sources.splits import canonical_split, check_split_folders, looks_like_split
from unet_dist.data.sources.walk import find_files, first_picture, folders_of, is_picture
from unet_dist.errors import DataError
from unet_dist.wording import counted

SPLIT = "{split}"
_IMAGES = ("images", "imgs", "img", "image", "img_dir", "jpegimages", "leftimg8bit")
_MASKS = (
    "masks",
    "mask",
    "labels",
    "label",
    "annotations",
    "ann_dir",
    "segmentationclass",
    "gtfine",
    "groundtruth",
    "gt",
)
_SPLIT_FIRST = re.compile(r"(train|training|val|valid|validation|test|testing)(?P<end>.*)", re.IGNORECASE)
_TRIED = 8
"""Patterns of names that are tried; assumption: the name of an image stands no more often in its mask's."""
_MASK_WORDS = r"(?P<affix>[-_. ](mask|masks|label|labels|seg|segmentation|gt|groundtruth|annotation|labelids))"


@dataclass(frozen=True)
class Layout:
    """Where images and masks lie below the root, and how their names differ."""

    images_folder: str = "images"
    masks_folder: str = "masks"
    image_names: str = "*"
    """Names of images; * is the part that they share with their masks. An extension may follow."""
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
        images = _places(root, self.images_folder, self.masks_folder)
        masks = _places(root, self.masks_folder, self.images_folder)
        if "" in images and "" not in masks and len(images) == 1:
            masks = {"": root / self.masks_folder}
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
        image_files, mask_files = by_name(images, self.image_names), by_name(masks, self.mask_names)
        if images.resolve() == masks.resolve():
            if self.image_names == self.mask_names:
                raise DataError(
                    f"{images}: it holds images and masks. Say how their names differ: --mask_names '*_mask'."
                )
            narrow, wide = (mask_files, image_files) if self.image_names == "*" else (image_files, mask_files)
            taken = set(narrow.values())
            for name in [name for name, path in wide.items() if path in taken]:
                del wide[name]
        return image_files, mask_files

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
    head, _, tail = pattern.partition("*")
    with_extension = bool(re.search(r"\.\w+$", tail)) and is_picture(Path("x" + tail))
    is_plain_folder = path.suffix != ".zarr" and path.is_dir()
    name = path.name if with_extension or is_plain_folder else path.stem
    if len(name) <= len(head) + len(tail) or not (name.startswith(head) and name.endswith(tail)):
        return None
    return name[len(head) : len(name) - len(tail)]


def by_name(folder: Path, pattern: str, suffixes: Collection[str] | None = None) -> dict[str, Path]:
    """Give the files below a folder whose names fit a pattern by the path that the pattern leaves of them.

    Raises:
        DataError: two files have the same.
    """
    found: dict[str, Path] = {}
    for path in find_files(folder, suffixes):
        part = shared_part(path, pattern)
        if part is None:
            continue
        shared = path.relative_to(folder).with_name(part)
        key = unicodedata.normalize("NFC", shared.as_posix())  # a Mac's names, and those of others
        if key in found:
            raise DataError(f"{path}: {found[key].name} beside it has the same name. Keep one of the two.")
        found[key] = path
    return found


def guess_layout(root: Path) -> Layout | None:
    """Guess how a folder holds images and masks, None where it does not.

    Raises:
        DataError: it may be read in two ways.
    """
    folders = {path.name.lower(): path.name for path in folders_of(root)}
    if "images" in folders.values() and "masks" in folders.values():
        return _with_names(root, "images", "masks")
    pairs = _named_pairs(root)
    if not pairs:
        splits = [path for path in folders_of(root) if looks_like_split(path.name)]
        pairs = sorted({(f"{SPLIT}/{a}", f"{SPLIT}/{b}") for path in splits for a, b in _named_pairs(path)})
    if len(pairs) > 1:
        listed = "; or ".join(Layout(*pair).spell() for pair in pairs[:5])
        raise DataError(f"{root}: it may be read in several ways. Say which: {listed}.")
    pairs = pairs or _split_in_name(root)
    if pairs:
        return _with_names(root, *pairs[0])
    return _in_one_folder(root)


def _named_pairs(root: Path) -> list[tuple[str, str]]:
    folders = [path for path in folders_of(root) if first_picture(path)]
    images = [path.name for path in folders if path.name.lower() in _IMAGES]
    masks = [path.name for path in folders if path.name.lower() in _MASKS]
    return [(image, mask) for image in images for mask in masks]


def _split_in_name(root: Path) -> list[tuple[str, str]]:
    """Guess at train_images/ with train_masks/, or train/ with train_masks/, alike for each split; none or one."""
    found = [match for path in folders_of(root) if (match := _SPLIT_FIRST.fullmatch(path.name)) and first_picture(path)]
    ends = {match["end"].lower(): match["end"] for match in found}
    images = [end for word, end in ends.items() if word.strip("-_ .") in ("", *_IMAGES)]
    masks = [end for word, end in ends.items() if word.strip("-_ .") in (*_MASKS, "annot", "seg")]
    return [(f"{SPLIT}{images[0]}", f"{SPLIT}{masks[0]}")] if len(ends) == 2 and len(images) == len(masks) == 1 else []


def _with_names(root: Path, images_folder: str, masks_folder: str) -> Layout:
    """Guess the patterns of the names from those that are there."""
    if masks_folder.lower() == "gtfine":  # Cityscapes: of four files for each image one holds ids
        return Layout(images_folder, masks_folder, "*_leftImg8bit", "*_gtFine_labelIds")
    plain = Layout(images_folder, masks_folder)
    images, masks = plain.places(root)
    if all(_starts_alike(images[split], masks[split]) for split in images):
        return plain
    image_names = [name for folder in images.values() for name in by_name(folder, "*")]
    mask_names = [name for folder in masks.values() for name in by_name(folder, "*")]
    if not image_names or not mask_names or set(image_names) & set(mask_names):
        return plain
    stem = Path(image_names[0]).name
    around = [Path(name).name for name in mask_names if stem in Path(name).name][:_TRIED]
    # Wherever the name stands in the mask's: a is in mask_a twice.
    found = [(name, match.start()) for name in around for match in re.finditer(f"(?={re.escape(stem)})", name)]
    patterns = [("*", f"{name[:start]}*{name[start + len(stem) :]}") for name, start in found][:_TRIED]
    patterns.append((_affixes(image_names), _affixes(mask_names)))

    def shared(layout: Layout) -> list[int]:
        pairs = [(images[split], masks[split]) for split in images]
        return [len(set(by_name(a, layout.image_names)) & set(by_name(b, layout.mask_names))) for a, b in pairs]

    layouts = dict.fromkeys(Layout(images_folder, masks_folder, *pattern) for pattern in patterns)
    fitting = {layout: sum(counts) for layout in layouts if all(counts := shared(layout))}
    return max(fitting, key=lambda layout: fitting[layout]) if fitting else plain


def _starts_alike(images: Path, masks: Path) -> bool:
    """Say whether the first image has a mask of its name, at the cost of one folder's names."""
    first = first_picture(images)
    if first is None:
        return True
    folder = masks / first.relative_to(images).parent
    return folder.is_dir() and any(path.stem == first.stem and is_picture(path) for path in folder.iterdir())


def _affixes(paths: list[str]) -> str:
    """Give the pattern of what all names begin and end with, digits left to what differs.

    >>> _affixes(["img_001_a", "img_002_a"])
    'img_*_a'
    """
    names = [Path(path).name for path in paths]
    head = re.sub(r"\d+$", "", _common_start(names))
    rest = [name[len(head) :][::-1] for name in names]
    tail = re.sub(r"^\d+", "", _common_start(rest)[::-1])
    return f"{head}*{tail}" if all(len(name) > len(head) + len(tail) for name in names) else "*"


def _common_start(words: list[str]) -> str:
    low, high = min(words), max(words)  # what the first and the last in order share, all between share
    return low[: next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))]


def _in_one_folder(root: Path) -> Layout | None:
    """Guess at x.jpg beside x_mask.png, or beside x.png."""
    folders = folders_of(root)
    is_split = bool(folders) and all(looks_like_split(folder.name) for folder in folders)
    place = SPLIT if is_split and check_split_folders(root, [folder.name for folder in folders]) else "."
    files = [path for folder in (folders if is_split else [root]) for path in folder.iterdir() if is_picture(path)]
    stems = {path.stem for path in files}
    for path in files:
        match = re.fullmatch(rf"(?P<stem>.+){_MASK_WORDS}", path.stem, re.IGNORECASE)
        if match and match["stem"] in stems:
            return Layout(place, place, "*", f"*{match['affix']}")
        if match and (image := _image_affix(match["stem"], match["affix"], stems)):
            return Layout(place, place, f"*{image}", f"*{match['affix']}")
    suffixes = {path.suffix for path in files}
    if len(files) == 2 * len(stems) and len(suffixes) == 2 and suffixes - {".png"} <= {".jpg", ".jpeg", ".JPG"}:
        return Layout(place, place, f"*{(suffixes - {'.png'}).pop()}", "*.png")
    return None


def _image_affix(stem: str, affix: str, stems: set[str]) -> str | None:
    """Find what stands behind the names of the images where masks have another affix: x_sat beside x_mask."""
    shared = [name.removesuffix(affix) for name in stems if name.endswith(affix)]
    ends = [name.removeprefix(stem) for name in stems if name.startswith(stem) and not name.endswith(affix)]
    fitting = [
        end
        for end in ends
        if re.match(r"[-_. ]", end) and stems == {f"{one}{tail}" for one in shared for tail in (end, affix)}
    ]
    return fitting[0] if len(fitting) == 1 else None


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


def _name_in(path: str, folder: str) -> str:
    """Give what stands for the split in a path that fits a folder's pattern."""
    head, _, tail = folder.partition(SPLIT)
    return path[len(head) : len(path) - len(tail)]


def _with_split(folder: str, split: str) -> str:
    return folder.replace(SPLIT, split) if SPLIT in folder else f"{folder}/{split}"
