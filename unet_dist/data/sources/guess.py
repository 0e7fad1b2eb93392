"""A guess at how a folder holds images and masks: by words in the names of folders, and by names of files that fit each other.

Owns these words and the patterns that are tried. Reads names only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from unet_dist.data.sources.layout import SPLIT, Layout, Template, by_name, part_of
from unet_dist.data.sources.objects import join_objects
from unet_dist.data.sources.splits import canonical_split, check_split_folders, is_split_name, looks_like_split
from unet_dist.data.sources.walk import first_picture, folders_of, is_picture
from unet_dist.errors import DataError

# fmt: off
_IMAGES = ("images", "imgs", "img", "image", "img_dir", "jpegimages", "leftimg8bit")
_MASKS = ("masks", "mask", "labels", "label", "annotations", "ann_dir", "segmentationclass", "gtfine", "groundtruth", "gt")
# Words in the names of folders: of masks, and of pictures made from masks, which hold no ids of classes.
_OF_MASKS = {"mask", "label", "annotation", "annot", "ann", "gt", "ground", "groundtruth", "seg", "segmentation", "semantic",
             "segmentationclass", "manual", "map", "trimap", "target", "class", "labelmap"}
_OF_OTHERS = {"object", "instance", "inst", "color", "colour", "colored", "coloured", "colormap", "vis", "viz", "visualization",
              "overlay", "panoptic", "depth", "disparity", "edge", "boundary", "bbox", "box", "preview"}
# fmt: on
_IN_NAME = re.compile(
    r"(?:^|(?<=[-_. ]))(training|train|validation|valid|val|testing|test)(?=[-_. ]|annot|images|masks|labels|$)",
    re.IGNORECASE,
)
_PLAIN = ("*", "*")
_TRIED = 8
"""Patterns of names that are tried; assumption: the name of an image stands no more often in its mask's."""
_DEEPEST, _MOST_FOLDERS, _MOST_PAIRS = 5, 20_000, 64
"""assumption: data sets are not deeper, and of more no rule is found by their names in a moment."""
_WORDS = "mask|masks|label|labels|seg|segmentation|gt|groundtruth|annotation|labelids"
_MASK_WORDS = rf"(?P<affix>[-_. ]({_WORDS}))"
_WORD_ANYWHERE = re.compile(rf"(?:^|[-_. ])(?:{_WORDS})(?=$|[-_. \d])", re.IGNORECASE)

Names = dict[str, list[str]]
"""The names of pictures without extension, behind the folders that * stands for, by split."""


def guess_layout(root: Path) -> Layout | None:
    """Guess how a folder holds images and masks, None where it does not.

    Raises:
        DataError: it may be read in several ways.
    """
    if {"images", "masks"} <= {path.name for path in folders_of(root)}:
        return _with_names(root, "images", "masks")
    found = _in_tree(root)
    if not found:
        pairs = _named_pairs(root)
        if not pairs:
            splits = [path for path in folders_of(root) if looks_like_split(path.name)]
            pairs = sorted({(f"{SPLIT}/{a}", f"{SPLIT}/{b}") for path in splits for a, b in _named_pairs(path)})
        found = [Layout(*pair) for pair in pairs] if len(pairs) != 1 else [_with_names(root, *pairs[0])]
    if len(found) > 1:
        listed = "; or ".join(layout.spell() for layout in found[:_TRIED])
        raise DataError(f"{root}: it may be read in several ways. Say which: {listed}.")
    return found[0] if found else _in_one_folder(root)


def _in_tree(root: Path) -> list[Layout]:
    """Find folders of which one is called as masks and has a file for each that it labels in the other.

    One with as many files counts, whatever their names: of mask/ and 1st_manual/ either may be meant.
    """
    tree = _starred(_templates(root))
    # A folder with masks of its own is a data set by itself: its images do not belong to masks elsewhere.
    whole = {one[0] for one in tree if _words(one[1:]) & _OF_MASKS}
    pairs = [
        (images, masks)
        for masks in tree
        for images in tree
        if _are_pair(images, masks) and (images[0] == masks[0] or images[0] not in whole)
    ]
    if len(pairs) > _MOST_PAIRS:
        return []
    counts = {one: {split: len(each) for split, each in names.items()}.items() for one, names in tree.items()}
    by_names = {pair: names for pair in pairs if (names := _fit(tree[pair[0]], tree[pair[1]]))}
    labelled = {images for images, _ in by_names}
    by_count = {pair: _PLAIN for pair in pairs if pair[0] in labelled and counts[pair[1]] <= counts[pair[0]]}
    # Images without masks beside, as train_extra beside train_images: whoever looks at splits refuses them.
    left = [one for one in tree.keys() - labelled if not _words(one) & (_OF_MASKS | _OF_OTHERS)]
    if any(SPLIT in part != SPLIT for one in left for part in one):
        return []
    found = [Layout(*_folders(*pair), *names) for pair, names in (by_count | by_names).items()]
    return sorted((layout for layout in found if _holds(layout, root)), key=Layout.spell)


def _holds(layout: Layout, root: Path) -> bool:
    """Say whether the words of splits in names, if there are any, are those of their folders."""
    if SPLIT not in layout.image_names + layout.mask_names:
        return True
    images, masks = layout.places(root)
    found = [layout.find(images[split], masks[split]) for split in masks]
    return all(pictures and set(labels) <= set(pictures) for pictures, labels in found)


def _templates(root: Path) -> dict[Template, Names]:
    """Give the folders that hold pictures, those of all splits together; none where there are too many."""
    tree: dict[Template, Names] = {}
    for number, (parts, names) in enumerate(_leaves(root, ())):
        if number >= _MOST_FOLDERS:
            return {}
        template, split = _split_of(parts)
        if names:
            tree.setdefault(template, {}).setdefault(split, []).extend(names)
    return tree


def _leaves(folder: Path, parts: Template) -> Iterator[tuple[Template, list[str]]]:
    yield parts, [path.stem for path in folder.iterdir() if is_picture(path)] if parts else []
    for path in folders_of(folder) if len(parts) < _DEEPEST else []:
        yield from _leaves(path, (*parts, path.name))


def _split_of(parts: Template) -> tuple[Template, str]:
    """Put {split} for the first folder that is a split or, where none is, has one in its name."""
    for place, part in enumerate(parts):
        if is_split_name(part):
            return (*parts[:place], SPLIT, *parts[place + 1 :]), canonical_split(part)
    for place, part in enumerate(parts):
        if match := _IN_NAME.search(part):
            name = f"{part[: match.start()]}{SPLIT}{part[match.end() :]}"
            return (*parts[:place], name, *parts[place + 1 :]), canonical_split(match[1])
    return parts, ""


def _starred(tree: dict[Template, Names]) -> dict[Template, Names]:
    """Put * for the folders of one place below the first that hold the same folders, such as regions with images and masks."""
    for place in range(1, _DEEPEST):
        inside: dict[str, set[Template]] = {}
        for one in tree:
            if len(one) > place and one[place] != SPLIT:
                inside.setdefault(one[place], set()).add((*one[:place], "*", *one[place + 1 :]))
        most = max(inside.values(), key=len, default=set())
        are_alike = len(inside) > 1 < len(most) and all(held <= most for held in inside.values())
        if not are_alike or _words(tuple(inside)) & _OF_MASKS:
            continue
        starred: dict[Template, Names] = {}
        for one, names in tree.items():
            if len(one) <= place or one[place] == SPLIT:
                starred[one] = names
                continue
            held = starred.setdefault((*one[:place], "*", *one[place + 1 :]), {})
            for split, stems in names.items():
                held.setdefault(split, []).extend(f"{one[place]}/{stem}" for stem in stems)
        return starred
    return tree


def _are_pair(images: Template, masks: Template) -> bool:
    """Say whether two folders are called as images and masks, neither inside the other, nor both in one data set below."""
    alike = next((i for i, (a, b) in enumerate(zip(images, masks, strict=False)) if a != b), -1)
    if alike < 0 or (alike and SPLIT not in images[0]):
        return False
    of_images, of_masks = _words(images[alike:]), _words(masks[alike:])
    is_drawn = of_masks & (_OF_OTHERS | {"rgb"})
    return not of_images & (_OF_MASKS | _OF_OTHERS) and bool(of_masks & _OF_MASKS) and not is_drawn


def _words(parts: Template) -> set[str]:
    """Give the words of names, and each without a plural's end.

    >>> sorted(_words(("SegmentationClass", "1st_maps")))
    ['cla', 'clas', 'class', 'map', 'maps', 'segmentation', 'st']
    """
    words = {word.lower() for part in parts for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", part)}
    return words | {word.removesuffix("s") for word in words} | {word.removesuffix("es") for word in words}


def _folders(images: Template, masks: Template) -> tuple[str, str]:
    """Write both as keys have them: whatever lies in folders of the same names below need not be named."""
    while len(images) > 1 < len(masks) and images[-1] == masks[-1] in ("*", SPLIT):
        images, masks = images[:-1], masks[:-1]
    return "/".join(images), "/".join(masks)


def _fit(images: Names, masks: Names) -> tuple[str, str] | None:
    """Find the patterns of names by which each mask has its image, in every split; None where there are none."""
    if not masks.keys() <= images.keys():
        return None

    def fits(split: str, image_names: str, mask_names: str) -> bool:
        shared = [_shared(name, mask_names) for name in masks[split]]
        return len(set(shared)) == len(shared) and set(shared) <= {
            part for name in images[split] if (part := _shared(name, image_names)) is not None
        }

    labelled = [name for split in masks for name in images[split]]
    tried = _patterns(labelled, [name for names in masks.values() for name in names])
    found = next((pattern for pattern in tried if all(fits(split, *pattern) for split in masks)), None)
    of_objects = all(
        join_objects(*({name: Path(name) for name in of[split]} for of in (images, masks))) for split in masks
    )
    return found or _by_split_words(images, masks) or (_PLAIN if of_objects else None)


def _by_split_words(images: Names, masks: Names) -> tuple[str, str] | None:
    """Find patterns with the word of each split, such as 21_training beside 21_manual1; None where there are none."""
    of_images, of_masks = _split_affixes(images), _split_affixes(masks)
    if SPLIT not in "".join((*of_images.values(), *of_masks.values())):
        return None
    for split in masks:
        known = {_shared(name, pattern) for pattern in of_images if of_images[pattern] for name in images[split]}
        shared = [next((part for one in of_masks if (part := _shared(name, one))), None) for name in masks[split]]
        if None in shared or len(set(shared)) < len(shared) or not set(shared) <= known:
            return None
    found = {*of_images.values()}, {*of_masks.values()}
    return (found[0].pop(), found[1].pop()) if len(found[0]) == len(found[1]) == 1 else None


def _split_affixes(names: Names) -> dict[str, str]:
    """Give the pattern of each split's names, and the same with {split} for the split's word."""
    found = {}
    for split, each in names.items():
        pattern = _affixes(each)
        words = [
            word for word in re.findall("[A-Za-z]+", pattern) if is_split_name(word) and canonical_split(word) == split
        ]
        found[pattern] = pattern.replace(words[0], SPLIT, 1) if words else pattern
    return found


def _shared(name: str, pattern: str) -> str | None:
    """Give the path that stands for the * of a pattern, None where the name does not fit."""
    path = PurePosixPath(name)
    part = part_of(path.name, pattern)
    return None if part is None else path.with_name(part).as_posix()


def _patterns(image_names: list[str], mask_names: list[str]) -> list[tuple[str, str]]:
    """List patterns of names that may pair them, as paths without extension: alike, around an image's name, or by both ends."""
    found = [_PLAIN]
    for image in image_names[:_TRIED]:
        stem = PurePosixPath(image).name
        around = [last for name in mask_names if stem in (last := PurePosixPath(name).name)][:_TRIED]
        # Wherever the name stands in the mask's: a is in mask_a twice.
        places = [(name, match.start()) for name in around for match in re.finditer(f"(?={re.escape(stem)})", name)]
        found += [("*", f"{name[:start]}*{name[start + len(stem) :]}") for name, start in places][:_TRIED]
        if places:
            break
    return list(dict.fromkeys([*found, (_affixes(image_names), _affixes(mask_names))]))


def _named_pairs(root: Path) -> list[tuple[str, str]]:
    folders = [path for path in folders_of(root) if first_picture(path)]
    images = [path.name for path in folders if path.name.lower() in _IMAGES]
    masks = [path.name for path in folders if path.name.lower() in _MASKS]
    return [(image, mask) for image in images for mask in masks]


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

    def shared(layout: Layout) -> list[int]:
        pairs = [(images[split], masks[split]) for split in images]
        return [len(set(by_name(a, layout.image_names)) & set(by_name(b, layout.mask_names))) for a, b in pairs]

    layouts = [Layout(images_folder, masks_folder, *pattern) for pattern in _patterns(image_names, mask_names)]
    fitting = {layout: sum(counts) for layout in layouts if all(counts := shared(layout))}
    if not fitting:
        return plain
    best = max(fitting, key=lambda layout: fitting[layout])
    left = [name for name in mask_names if _shared(name, best.mask_names) is None]
    if left and len(image_names) == 1:  # the objects of one image, or of one of many such folders
        return plain
    if left:  # masks of several kinds for each image, of which one kind would be dropped
        ways = [layout.spell() for layout, count in fitting.items() if count == fitting[best]]
        raise DataError(
            f"{root}: it may be read in several ways, as {masks_folder} holds {left[0]} beside {best.mask_names}. Say which: "
            f"{'; or '.join(ways[:_TRIED])}."
        )
    return best


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
    names = [PurePosixPath(path).name for path in paths]
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
    files = [path for folder in (folders if is_split else [root]) for path in folder.iterdir() if is_picture(path)]
    is_split = is_split and bool(files) and check_split_folders(root, [folder.name for folder in folders])
    place = SPLIT if is_split else "."
    stems = {path.stem for path in files}
    for path in files:
        match = re.fullmatch(rf"(?P<stem>.+){_MASK_WORDS}", path.stem, re.IGNORECASE)
        if match and match["stem"] in stems:
            return Layout(place, place, "*", f"*{match['affix']}")
        if match and (image := _image_affix(match["stem"], match["affix"], stems)):
            return Layout(place, place, f"*{image}", f"*{match['affix']}")
    found = _by_words(stems) if len({path.with_suffix("") for path in files}) == len(files) else None
    if found is not None:
        return Layout(place, place, *found)
    suffixes = {path.suffix for path in files}
    if len(files) == 2 * len(stems) and len(suffixes) == 2 and suffixes - {".png"} <= {".jpg", ".jpeg", ".JPG"}:
        return Layout(place, place, f"*{(suffixes - {'.png'}).pop()}", "*.png")
    return None


def _by_words(stems: set[str]) -> tuple[str, str] | None:
    """Find the patterns of names where a word of masks stands in half of them: x_cp_masks beside x, mask_1 beside img_1."""
    masks = {stem for stem in stems if _WORD_ANYWHERE.search(stem)}
    images = stems - masks
    if len(masks) != len(images) or not masks:
        return None
    for of_images, of_masks in _patterns(sorted(images), sorted(masks)):
        shared = [
            {part_of(name, pattern) for name in names} for names, pattern in ((images, of_images), (masks, of_masks))
        ]
        if shared[0] == shared[1] and None not in shared[0] and of_images != of_masks:
            return of_images, of_masks
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
