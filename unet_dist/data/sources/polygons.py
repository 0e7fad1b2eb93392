"""Outlines and run lengths drawn as ids, once and by one rule, and the source that all formats of these share.

The rule: a vertex is moved to the nearest fifth of a pixel; a pixel is inside where a line from its centre crosses the
outline an odd number of times, so that a crossing leaves a hole; the parts of one object are joined; a later object
covers an earlier one; 0 is what no object covers. This is pycocotools' reading, and its pixels are the same. Holes that a
format states leave the object by the same odd number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from unet_dist.data.sources.fingerprint import digest_files, digest_text
from unet_dist.data.sources.lists import find_lists, forms_of, read_list
from unet_dist.data.sources.pairs import RawPair
from unet_dist.data.sources.splits import FRACTIONS, is_split_name
from unet_dist.data.sources.walk import files_below
from unet_dist.errors import DataError, RefusedError, UnetDistError
from unet_dist.imaging.encoded import Encoded
from unet_dist.imaging.image import DEFAULT_MAX_PIXELS, Placement
from unet_dist.imaging.limits import require_decodable
from unet_dist.imaging.reader import open_image
from unet_dist.wording import counted, first_line, listed

BACKGROUND = "background"
_GRID = 5  # parts of a pixel
_ANY_RANGE = (0.0, 1.0)  # values are not looked at
_FARTHEST = 2**31
_MOST_STEPS = 2**24
"""Fifths of a pixel along an outline. Derived: walking one takes 64 bytes, so a GiB for 3 million px of outline."""
_BLOCK_PX = 2**21
"""Pixels of an object that are looked at together: a large image takes no more memory for it than its ids do."""
_VERSION = "drawn 2"  # another one where the pixels of the same file change


class Canvas:
    """Ids of an image, (H, W), drawn object after object; or a plane for each class, where classes overlap.

    Args:
        num_classes: 0 for uncovered pixels included; decides the type of the ids.
        overlap: draw planes of the classes from 1 on. An object covers no other class then; one of id 0 covers all.

    Attributes:
        ignored: the value of pixels that count nowhere, in all planes.
    """

    def __init__(self, height: int, width: int, num_classes: int, *, overlap: bool = False) -> None:
        if min(height, width) < 1:
            raise RefusedError(f"is of an image of {height} x {width} px", "Export it again.")
        num_planes = num_classes - 1 if overlap else 1
        require_decodable(height, width, height * width, "its image", bytes_per_px=max(4, 2 * num_planes))
        self.shape = height, width
        self._overlap, self._reach = overlap, 0.0
        dtype = np.uint8 if overlap or num_classes <= 255 else np.uint16
        self.ignored = int(np.iinfo(dtype).max)
        self._planes = np.zeros((num_planes, height * width), dtype=dtype)  # down the columns

    def polygon(self, points: np.ndarray, value: int) -> None:
        """Fill an outline of points (x, y), (N, 2) px; (0, 0) is the upper left corner of the first pixel.

        Raises:
            RefusedError: as `rings`.
        """
        self._reach = max(self._reach, float(np.abs(points).max(initial=0)))
        self.rings([points], value)

    def rings(self, rings: Sequence[np.ndarray], value: int) -> None:
        """Fill what an odd number of outlines surround: a polygon and its holes.

        Raises:
            RefusedError: a point is not finite, or the outlines are too long to be walked.
        """
        length = 0.0
        for points in rings:
            length += np.abs(np.diff(points, axis=0, append=points[:1])).max(axis=1, initial=0).sum() * _GRID
            if (
                not np.isfinite(points).all()
                or np.abs(points).max(initial=0) * _GRID > _FARTHEST
                or length > _MOST_STEPS
            ):
                raise RefusedError("has an outline that leads far beyond the image", "Correct it, or export it again.")
        crossings = np.concatenate([_crossings(points, *self.shape) for points in rings])
        if not len(crossings):
            return
        crossings.sort()
        parity, last = 0, int(crossings[-1])
        for start in range(int(crossings[0]), min(last + 1, self._planes.shape[1]), _BLOCK_PX):
            stop = min(start + _BLOCK_PX, last + 1)
            low, high = np.searchsorted(crossings, (start, stop))
            turns = np.cumsum(np.bincount(crossings[low:high] - start, minlength=stop - start)) + parity
            inside = (turns & 1).astype(bool)[: self._planes.shape[1] - start]
            for plane, written in self._targets(value):
                plane[start : start + len(inside)][inside] = written
            parity = int(turns[-1])

    def _targets(self, value: int) -> Iterator[tuple[np.ndarray, int]]:
        """The planes that an object of this id is drawn on, and their value there."""
        if not self._overlap:
            yield self._planes[0], value
        elif value in (0, self.ignored):
            yield from ((plane, value) for plane in self._planes)
        else:
            yield self._planes[value - 1], 1

    def pixels(self, mask: np.ndarray, value: int, top: int = 0, left: int = 0) -> None:
        """Fill the pixels of a mask (h, w) bool that lies at (top, left); pixels beyond the image are left out."""
        height, width = self.shape
        rows = slice(max(top, 0), min(top + mask.shape[0], height))
        cols = slice(max(left, 0), min(left + mask.shape[1], width))
        if rows.start < rows.stop and cols.start < cols.stop:
            inside = mask[rows.start - top : rows.stop - top, cols.start - left : cols.stop - left]
            for plane, written in self._targets(value):
                plane.reshape(width, height).T[rows, cols][inside] = written

    def ellipse(self, centre: tuple[float, float], radii: tuple[float, float], degrees: float, value: int) -> None:
        """Fill the pixels whose centres are in an ellipse; the angle turns clockwise, from x to y.

        Raises:
            RefusedError: one of the numbers is none, or a radius is negative.
        """
        height, width = self.shape
        if not np.isfinite((*centre, *radii, degrees)).all() or min(radii) < 0:
            raise RefusedError(
                f"has an ellipse at {centre} with the radii {radii} and the angle {degrees}",
                "Expected numbers, no radius below 0: correct it, or export it again.",
            )
        reach = max(radii)
        top, bottom = max(0, int(centre[1] - reach) - 1), min(height, int(centre[1] + reach) + 2)
        left, right = max(0, int(centre[0] - reach) - 1), min(width, int(centre[0] + reach) + 2)
        if top >= bottom or left >= right or min(radii) <= 0:
            return
        cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        step = max(1, _BLOCK_PX // (right - left))
        for first in range(top, bottom, step):
            y, x = np.mgrid[first : min(first + step, bottom), left:right] + 0.5
            x, y = x - centre[0], y - centre[1]
            inside = ((x * cosine + y * sine) / radii[0]) ** 2 + ((y * cosine - x * sine) / radii[1]) ** 2 <= 1
            self.pixels(inside, value, first, left)

    def runs(self, counts: Sequence[int], value: int) -> None:
        """Fill every second run of pixels down the columns, the first not.

        Raises:
            RefusedError: a run is negative or no whole number, or together they are more than the pixels, or fewer where the last
                one is not filled: such lengths were cut short.
        """
        lengths, most = np.asarray(counts, dtype=np.float64), self._planes.shape[1]
        is_whole = lengths.ndim == 1 and bool((np.floor(lengths) == lengths).all())
        is_cut = len(lengths) % 2 == 1 and lengths.sum() < most
        if not is_whole or (lengths < 0).any() or lengths.sum() > most or is_cut:
            raise RefusedError("has run lengths that do not fill the image", "Export it again.")
        ends = np.cumsum(lengths.astype(np.int64))
        for start, end in zip(ends[0::2], ends[1::2], strict=False):
            for plane, written in self._targets(value):
                plane[start:end] = written

    def ids(self) -> np.ndarray:
        """Give the drawing: (H, W), or (H, W, K) planes of 0 and 1 for the K classes from 1 on.

        Raises:
            RefusedError: all outlines lie in the first pixel, as shares of the sides do.
        """
        height, width = self.shape
        if 0 < self._reach <= 1 < max(height, width):
            raise RefusedError(
                "has outlines from 0 to 1 only, as shares of the width and the height are",
                "Expected pixels: export it again in pixels.",
            )
        upright = self._planes.reshape(-1, width, height).transpose(2, 1, 0)
        return np.ascontiguousarray(upright if self._overlap else upright[..., 0])


@dataclass(frozen=True)
class Sample:
    """An image and how its mask is drawn."""

    name: str
    image: Path
    draw: Callable[..., np.ndarray]
    """With overlap: planes of the classes, as a Canvas of that kind gives them."""
    mask_name: str
    files: tuple[Path, ...] = ()
    """Read when it is drawn, beside those of the format."""


@dataclass(frozen=True)
class Drawn:
    """What a format's reader gives: samples by split, names of the classes, and the files that say so."""

    samples: dict[str, list[Sample]]
    class_names: list[str]
    files: list[Path]
    note: str = ""
    """Notes for the user: samples left out, and assumptions."""


class DrawnSource:
    """Images whose masks are drawn when they are read.

    Args:
        read: of the format.
        overlap: whether masks are planes of the classes from 1 on, which may overlap.
        heeds_lists: whether lists of splits below the root deal the samples; not where one file of a folder was named.
        say: takes a line for the user.
    """

    fixed_shape: tuple[int, int, int] | None = None

    def __init__(
        self,
        root: Path,
        read: Callable[[], Drawn],
        say: Callable[[str], None] | None = None,
        *,
        overlap: bool = False,
        heeds_lists: bool = True,
    ) -> None:
        self._overlap, self._heeds_lists = overlap, heeds_lists
        self.name = root.resolve().name
        self.files_root: Path | None = root
        self._root, self._read, self._say = root, read, say or (lambda text: None)

    @cached_property
    def _drawn(self) -> Drawn:
        try:
            drawn = self._read()
            _ = [name.encode() for name in drawn.class_names]  # half of a pair of UTF-16 is no text that can be written
        except UnetDistError:
            raise
        except Exception as error:  # files of other programs: values of other types lead to anything
            raise DataError(
                f"{self.name}: its outlines cannot be read ({type(error).__name__}: {first_line(error)}). Export them again."
            ) from error
        _require_one_each(self._root, drawn.samples)
        drawn = _by_lists(self._root, drawn) if self._heeds_lists else drawn
        names = drawn.class_names[self._overlap :]
        shown = ", ".join(f"{index} {name}" for index, name in enumerate(names[:8]))
        more = ", ..." if len(names) > 8 else ""
        note = f"; {drawn.note}" if drawn.note else ""
        self._say(
            f"{self.name}: masks are drawn from {listed([file.name for file in drawn.files])}; class ids: {shown}{more}{note}"
        )
        return drawn

    @property
    def splits(self) -> dict[str, int]:
        """The number of samples of each split."""
        return {split: len(samples) for split, samples in self._drawn.samples.items()}

    def read_id_names(self) -> dict[int, str] | None:
        """Class names by the ids of the masks, None where the source has none."""
        return dict(enumerate(self._drawn.class_names[self._overlap :]))

    def read_pair(self, split: str, index: int) -> RawPair:
        """Read one image and its mask."""
        sample = self._drawn.samples[split][index]
        return RawPair(
            id=sample.name.replace("/", "-"),
            image=sample.image,
            mask=partial(_draw_guarded, partial(sample.draw, overlap=True) if self._overlap else sample.draw),
            image_name=str(sample.image.relative_to(self._root)),
            mask_name=sample.mask_name,
        )

    def signature(self, memo_path: Path) -> str:
        """A text that changes with the content; it names the decoded cache."""
        samples = [(split, sample) for split, samples in self._drawn.samples.items() for sample in samples]
        files = [file for _, one in samples for path in (one.image, *one.files) for file in files_below(path)]
        assigned = [f"{split} {sample.name}" for split, sample in samples]
        digest = digest_files(self._root, dict.fromkeys([*files, *self._drawn.files]), memo_path)
        return digest_text(
            _VERSION, *(["planes"] if self._overlap else []), digest, *self._drawn.class_names, *assigned
        )


def is_background(label: str) -> bool:
    """Say whether a label means what no object covers."""
    return label.strip().lower() in (BACKGROUND, "_background_")


def _require_one_each(root: Path, samples: Mapping[str, Sequence[Sample]]) -> None:
    """Raises DataError: two samples are of one picture, so that each lacks the objects of the other.

    A picture may be in two splits (whoever looks at copies says so), but not where its folder is of one of them: its namesake in
    the other's folder is missing.
    """
    owners: dict[Path, tuple[str, Sample]] = {}
    for split, sample in ((split, one) for split, each in samples.items() for one in each):
        own, other = owners.setdefault(sample.image, (split, sample))
        is_elsewhere = own != split and not any(map(is_split_name, sample.image.relative_to(root).parts[:-1]))
        if other is not sample and not is_elsewhere:
            masks = " and ".join(dict.fromkeys(f"mask {one.mask_name}" for one in (other, sample)))
            raise DataError(
                f"{sample.image}: two entries mean this picture ({masks}). Expected one entry with all of its objects: join the "
                "two, or remove one."
            )


def _by_lists(root: Path, drawn: Drawn) -> Drawn:
    """Deal samples without a split as lists beside them say. Raises: DataError: a list names others, or two name one."""
    found = find_lists(root) if list(drawn.samples) == ["train"] else {}
    lists = {split: one for split, one in found.items() if one.path not in drawn.files}
    if not lists:
        return drawn
    (samples,) = drawn.samples.values()
    forms = forms_of((one.image.relative_to(root).with_suffix("").as_posix(), str(one.image)) for one in samples)
    wanted = {split: set(read_list(lists[split], forms, {})) for split in FRACTIONS if split in lists}
    dealt = {split: [one for one in samples if str(one.image) in named] for split, named in wanted.items()}
    twice = sum(map(len, wanted.values())) - len(set().union(*wanted.values()))
    paths = [lists[split].path for split in dealt]
    if twice:
        raise DataError(
            f"{listed([str(path) for path in paths])}: {counted(twice, 'image')} in two of these lists. Keep each in one."
        )
    left = len(samples) - sum(map(len, dealt.values()))
    notes = [drawn.note] * bool(drawn.note)
    notes.append(f"splits from {listed([path.name for path in paths])}")
    notes += [f"{counted(left, 'image')} in none of them, left out"] * (left > 0)
    return replace(drawn, samples=dealt, files=[*drawn.files, *dict.fromkeys(paths)], note="; ".join(notes))


def picture_size(path: Path) -> tuple[int, int]:
    """Read (height, width) of a picture, as it stands upright."""
    return picture_header(path)[0]


def picture_header(path: Path) -> tuple[tuple[int, int], Placement]:
    """Read (height, width) of a picture, as it stands upright, and its place in the world."""
    with open_image(
        Encoded(path, f"image {path.name}"), max_pixels=DEFAULT_MAX_PIXELS, value_range=_ANY_RANGE
    ) as reader:
        return reader.shape[:2], reader.placement


def _draw_guarded(draw: Callable[[], np.ndarray]) -> np.ndarray:
    """Draw ids. Raises: RefusedError: whatever a damaged outline leads to."""
    try:
        return draw()
    except UnetDistError:
        raise
    except Exception as error:
        reason = f"cannot be drawn ({type(error).__name__}: {first_line(error)})"
        raise RefusedError(reason, "Correct its outlines, or export them again.") from error


def _crossings(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Give where an outline enters or leaves a column of pixel centres, as places down the columns: (M,) int64.

    Source: pycocotools, rleFrPoly (maskApi.c), with numpy in place of its loops.
    """
    grid = np.trunc(np.asarray(points, dtype=np.float64) * _GRID + 0.5).astype(np.int64)  # (N, 2)
    start, end = grid, np.roll(grid, -1, axis=0)
    span = np.abs(end - start)
    wide = span[:, 0] >= span[:, 1]
    steps = np.where(wide, span[:, 0], span[:, 1])
    # Each edge is walked from its lower end, so that two neighbours round alike; the order along the outline stays.
    flip = np.where(wide, start[:, 0] > end[:, 0], start[:, 1] > end[:, 1])
    low, high = np.where(flip[:, None], end, start), np.where(flip[:, None], start, end)
    rise = np.where(wide, (high - low)[:, 1], (high - low)[:, 0])
    slope = np.divide(rise, steps, out=np.zeros(len(steps)), where=steps > 0)
    edge = np.repeat(np.arange(len(steps)), steps + 1)
    along = np.arange(len(edge)) - np.repeat(np.cumsum(steps + 1) - (steps + 1), steps + 1)
    along = np.where(flip[edge], steps[edge] - along, along)
    across = slope[edge] * along + 0.5
    u = np.where(wide[edge], along + low[edge, 0], np.trunc(low[edge, 0] + across).astype(np.int64))
    v = np.where(wide[edge], np.trunc(low[edge, 1] + across).astype(np.int64), along + low[edge, 1])
    moved = u[1:] != u[:-1]
    left = np.where(u[1:] < u[:-1], u[1:], u[1:] - 1)[moved]
    top = np.minimum(v[1:], v[:-1])[moved]
    x = (left + 0.5) / _GRID - 0.5
    is_centre = (np.floor(x) == x) & (x >= 0) & (x <= width - 1)
    y = np.ceil(np.clip((top[is_centre] + 0.5) / _GRID - 0.5, 0, height)).astype(np.int64)
    return x[is_centre].astype(np.int64) * height + y
