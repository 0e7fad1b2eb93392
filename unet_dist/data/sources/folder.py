"""A folder of pictures: images and their masks, matched by name.

Owns the pairs by split. How the folders and names look is `layout.py`, what counts as a file `walk.py`. Reads no pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path, PurePosixPath

from unet_dist.data.sources.fingerprint import digest_files, digest_text
from unet_dist.data.sources.layout import Layout
from unet_dist.data.sources.lists import SplitList, find_lists, forms_of, read_list
from unet_dist.data.sources.names import find_id_names
from unet_dist.data.sources.objects import draw_objects, join_objects
from unet_dist.data.sources.pairs import RawPair
from unet_dist.data.sources.planes import MaskFile, first_of, split_names, stack_masks
from unet_dist.data.sources.splits import FRACTIONS
from unet_dist.data.sources.unread import describe_unread
from unet_dist.data.sources.walk import UNREAD, files_below, find_files
from unet_dist.errors import DataError
from unet_dist.imaging.encoded import split_page, stem_of
from unet_dist.imaging.formats import image_suffixes
from unet_dist.imaging.stacks import ALL, Select, images_in
from unet_dist.wording import counted, listed

Pair = tuple[str, Path, MaskFile]  # name, image, mask


class FolderSource:
    """Pairs of files, in folders of their own by split or not, or by split as lists say.

    `images/train/...` and `masks/train/...` (validation, val, test, ...) give splits. Below that, folders may be
    nested; an image and its mask have the same path but for the extension and what the layout says. Names of classes may
    lie beside.
    """

    fixed_shape: tuple[int, int, int] | None = None

    def __init__(
        self,
        root: Path,
        layout: Layout | None = None,
        say: Callable[[str], None] | None = None,
        *,
        multi_label: bool = False,
        select: Select = ALL,
    ) -> None:
        self.root, self.select = root, select
        self.files_root: Path | None = root
        self.name = root.resolve().name
        self.layout = layout or Layout()
        self._say = say or (lambda text: None)
        self._lists: dict[str, SplitList] = {}
        self._multi_label = multi_label

    @property
    def splits(self) -> dict[str, int]:
        """The number of samples of each split."""
        return {name: len(pairs) for name, pairs in self._pairs.items()}

    def read_id_names(self) -> dict[int, str] | None:
        """Class names by the ids of the masks, None where the source has none."""
        names = find_id_names(self.root)[1]
        return dict(enumerate(self._classes)) if names is None and self._classes else names

    def read_pair(self, split: str, index: int) -> RawPair:
        """Read one image and its mask."""
        name, image, mask = self._pairs[split][index]
        return RawPair(
            id=name.replace("/", "-"),
            image=image,
            mask=partial(draw_objects, mask) if isinstance(mask, tuple) and not self._multi_label else mask,
            image_name=str(image.relative_to(self.root)),
            mask_name=str((mask[0].parent if isinstance(mask, tuple) else mask).relative_to(self.root)),
        )

    def signature(self, memo_path: Path) -> str:
        """A text that changes with the content; it names the decoded cache."""
        pairs = [(split, *pair) for split, pairs in self._pairs.items() for pair in pairs]
        files = [
            file
            for *_, image, mask in pairs
            for path in (image, *(mask if isinstance(mask, tuple) else (mask,)))
            for file in files_below(split_page(path)[0])
        ]
        names = find_id_names(self.root)[0]
        # The bytes alone tell no more which split a sample is in, once lists or other names of folders say it.
        assigned = [f"{split} {name}" for split, name, _, _ in pairs] if self._is_assigned else []
        assigned += ["planes", *self._classes] if self._classes else []
        digest = digest_files(self.root, dict.fromkeys([*files, *([names] if names else [])]), memo_path)
        chosen = [f"select {name}={first}-{last}" for name, (first, last) in sorted(self.select.items())]
        return digest_text("folder", digest, *assigned, *chosen)

    @property
    def _is_assigned(self) -> bool:
        usual = {*FRACTIONS, "training", "val", "valid", "dev", "eval", "testing"}
        folders = {split: path.name.lower() for split, path in self._found[0].items() if split}
        return not self.layout.is_usual or bool(self._lists) or not set(folders.values()) <= usual

    @cached_property
    def _found(self) -> tuple[dict[str, Path], dict[str, Path]]:
        return self.layout.places(self.root)

    @cached_property
    def _sorted(self) -> tuple[list[str], dict[str, tuple[dict[str, Path], dict[str, MaskFile]]]]:
        """Overlapping classes whose masks are files of their own, none where they are not; images and masks by split."""
        images, masks = self._found
        found = {split: self.layout.find(images[split], masks[split]) for split in images}
        if not self._multi_label and self.layout.has_folders:
            joined = {split: join_objects(*pair) for split, pair in found.items() if pair[1]}
            if joined and all(joined.values()):
                count = sum(len(masks) for each in joined.values() for masks in each.values())
                self._say(
                    f"{self.name}: {count:,} masks of single objects, joined for each image: 1 where one of them is not 0"
                )
                return [], {split: (found[split][0], dict(joined.get(split, {}))) for split in found}
        by_image = {split: split_names(*pair) for split, pair in found.items()} if self._multi_label else {}
        if not any(by_image.values()):
            return [], {split: (pair[0], dict(pair[1])) for split, pair in found.items()}
        seen = {name for each in by_image.values() for planes in each.values() for name in planes} - {""}
        names = find_id_names(self.root)[1]
        classes = sorted(seen) if names is None else [names[index] for index in sorted(names)]
        if unknown := sorted(seen - set(classes)):
            raise DataError(
                f"{self.root}: there are masks of {listed(unknown, 10)}, and the file of names has {', '.join(classes)}. Correct "
                "the names, or remove these masks."
            )
        stacked = {split: stack_masks(masks[split], each, classes) for split, each in by_image.items()}
        return classes, {split: (found[split][0], stacked[split]) for split in found}

    @property
    def _classes(self) -> list[str]:
        return self._sorted[0]

    @cached_property
    def _pairs(self) -> dict[str, list[Pair]]:
        """Pairs by split. Raises: DataError: files without a partner, or two of one name."""
        if not self.layout.is_usual:
            self._say(f"{self.name}: read as {self.layout.spell()}")
        images, found = self._found[0], self._sorted[1]
        unread = set(UNREAD) - set(image_suffixes())
        others = [file.name for folder in {*images.values()} for file in find_files(folder, unread)]
        if others and not any(found_images for found_images, _ in found.values()):
            raise DataError(f"{self.root}: no image and no mask can be read. {describe_unread(self.root)}")
        if others:
            self._say(
                f"{self.name}: left out, as their format is not read: {listed(sorted(others), 10)}. Convert them to TIFF or PNG."
            )
        self._lists = find_lists(self.root, self.layout.masks_folder)
        if self._lists:
            return self._by_lists(found)
        order = sorted(found, key=("", "train", "validation", "test").index)
        return {split or "train": self._match(images[split], *found[split]) for split in order}

    def _by_lists(self, found: dict[str, tuple[dict[str, Path], dict[str, MaskFile]]]) -> dict[str, list[Pair]]:
        """Take the pairs that lists name. Raises: DataError: a folder or another list says otherwise."""
        samples = {f"{split}/{name}": (split, name) for split, (images, _) in found.items() for name in images}
        forms, mask_forms = (
            forms_of(
                written
                for sample, (split, name) in samples.items()
                if name in found[split][kind]
                for written in (
                    (name, sample),
                    (first_of(found[split][kind][name]).relative_to(self.root).with_suffix("").as_posix(), sample),
                )
            )
            for kind in (0, 1)
        )
        pairs: dict[str, list[Pair]] = {}
        taken: dict[str, Path] = {}
        for target in sorted(self._lists, key=list(FRACTIONS).index):
            path = self._lists[target].path
            wanted = read_list(self._lists[target], forms, mask_forms)
            for sample in wanted:
                split = samples[sample][0]
                if sample in taken or split not in ("", target):
                    other = taken.get(sample, found[split][0][samples[sample][1]].parent)
                    raise DataError(
                        f"{path}: {sample.lstrip('/')} is in {other}, too. Keep it in one split: correct the list."
                    )
                taken[sample] = path
            keys = [samples[sample] for sample in wanted]
            images = {name: found[split][0][name] for split, name in keys}
            masks = {name: found[split][1][name] for split, name in keys if name in found[split][1]}
            pairs[target] = self._match(path, images, masks)
        for split in found.keys() - {""} - pairs.keys():
            pairs[split] = self._match(self._found[0][split], *found[split])
        num_left = sum(len(found[split][0]) for split in found.keys() & {"", *self._lists}) - len(taken)
        lists = ", ".join(dict.fromkeys(str(found.path.relative_to(self.root)) for found in self._lists.values()))
        self._say(f"{self.name}: splits from {lists}; {counted(num_left, 'image')} in none of these lists, left out")
        return {split: pairs[split] for split in FRACTIONS if split in pairs}

    def _match(self, place: Path, images: dict[str, Path], masks: dict[str, MaskFile]) -> list[Pair]:
        """Pair images and masks of one name. Raises: DataError: one has no partner."""
        if images and not masks:
            raise DataError(
                f"{place}: {counted(len(images), 'image')} and no mask. Put the masks there; or move images without masks out of "
                "the data set: predict labels them."
            )
        without_mask = sorted(str(images[name]) for name in images.keys() - masks.keys())
        without_image = sorted(str(masks[name]) for name in masks.keys() - images.keys())
        if without_mask or without_image:
            lines = [f"images without a mask: {listed(without_mask, 10)}"] if without_mask else []
            lines += [f"masks without an image: {listed(without_image, 10)}"] if without_image else []
            raise DataError(
                "\n  ".join([f"{place if place.is_file() else self.root}: images and masks do not match.", *lines])
                + f"\n{self.layout.describe_names()} Rename, add or remove files; or list the pairs in a table, "
                "--data_path list.csv with the columns image and mask."
            )
        return [
            pair
            for name in sorted(images)
            for pair in pages_of(name, images[name], masks[name], self.select, multi_label=self._multi_label)
        ]


def pages_of(name: str, image: Path, mask: MaskFile, select: Select = ALL, *, multi_label: bool = False) -> list[Pair]:
    """Give one pair, or one for each page of two stacks; the pages of one mask may be the planes of overlapping classes.

    Raises:
        DataError: one has more pages than the other.
    """
    if isinstance(mask, tuple):
        return [(name, image, mask)]
    images, masks = images_in(image, select), images_in(mask, select)
    if multi_label and len(images) == 1 and len(masks) > 1:
        return [(name, image, tuple(masks))]
    if len(images) != len(masks):
        raise DataError(
            f"{image}: it holds {counted(len(images), 'image')}, and its mask {mask} {len(masks)}. Write as many pages to both."
        )
    if len(images) == 1:
        return [(name, images[0], masks[0])]
    numbered = [PurePosixPath(name).with_name(stem_of(page)).as_posix() for page in images]
    return list(zip(numbered, images, masks, strict=True))
