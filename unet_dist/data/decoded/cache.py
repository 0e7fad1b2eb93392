"""The decoded data set on disk: mapped pixels of the type that the files store, so that a crop reads the crop and not the image. Of
pairs that are read by windows from their own files it holds the sums and the paths.

Owns the files' layout, where they lie, and reading them. `build.py` writes them. A cache holds what the source gives,
in the source's order; which sample is in which split is decided when it is opened, so that a new seed costs nothing.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from unet_dist.data.decoded.decode import ImageRules
from unet_dist.data.decoded.labels import LabelRules
from unet_dist.data.decoded.moments import mean_and_std, num_bins, percentiles
from unet_dist.data.decoded.pixel_files import HISTOGRAMS, IMAGES, KNOWN, LABELS, check_key, quick_digest
from unet_dist.data.decoded.planes import PlaneRules, planes_dtype
from unet_dist.data.decoded.sample_names import name_apart, names_of
from unet_dist.data.decoded.sealed import read_index, read_table
from unet_dist.data.decoded.settings import CacheSettings, is_whole, locate_cache
from unet_dist.data.decoded.windowed import WindowedFiles, WindowedImage, WindowedLabel
from unet_dist.data.sources.fingerprint import digest_pixels
from unet_dist.data.sources.groups import Grouping
from unet_dist.data.sources.pairs import Source
from unet_dist.data.sources.splits import NO_GROUPING, assign_splits, canonical_split
from unet_dist.errors import DataError
from unet_dist.imaging.image import ImageReader, Placement
from unet_dist.imaging.readers import ArrayReader
from unet_dist.machine.cores import num_cores
from unet_dist.storage.mapped import watched

_MOST_THREADS = 16
ALL = "all"
"""The split that holds every sample, whatever its own split."""


def open_cache(
    source: Source,
    settings: CacheSettings,
    *,
    seed: int,
    cache_path: str | Path | None = None,
    grouping: Grouping = NO_GROUPING,
) -> Cache:
    """Open the cache of a source that `prepare` has made before.

    Raises:
        DataError: there is none.
    """
    path = locate_cache(source, settings, cache_path)
    if not is_whole(path):
        raise DataError(
            f"{path}: the decoded cache of {source.name} is not there. Run `unet-dist prepare` with the same settings "
            "first, or set cache_path to the folder that holds it."
        )
    return Cache(path, seed=seed, root=source.files_root, grouping=grouping)


class Cache:
    """A data set, decoded. Opening is cheap, the files are mapped at first use; may be pickled and forked.

    Args:
        path: of the cache.
        seed: decides the splits where the source has none.
        root: folder of the source's files, where images may be read from them.
        grouping: which samples stay together, and folds.

    Raises:
        DataError: the files are of another version, or incomplete.
    """

    def __init__(
        self, path: str | Path, *, seed: int, root: Path | None = None, grouping: Grouping = NO_GROUPING
    ) -> None:
        self.path, self.seed = Path(path), seed
        self.root, self.grouping = root, grouping
        index = read_index(self.path)
        self.name: str = index["name"]
        self.num_classes: int = index["num_classes"]
        self.class_names: list[str] = index["class_names"]
        self.ignore_index: int | None = index["ignore_index"]
        self.channels: int = index["channels"]
        self.dtype = np.dtype(index["dtype"])
        """Of the pixels: uint8, uint16, int16 or float32."""
        self.has_nodata: bool = index["has_nodata"]
        """Whether a pixel of an image has no data."""
        self._planes: dict[str, Any] | None = index.get("multi_label")
        """How the values of planes are read; None where a pixel has one class."""
        self.multi_label = self._planes is not None
        kind = str(planes_dtype(self.num_classes)) if self.multi_label else index.get("label_dtype", "uint8")
        self.label_dtype = np.dtype(kind)
        self.given_splits: dict[str, int] = index["splits"]
        self.ids: list[str] = index["ids"]
        self.names = names_of(index)
        """As their files have them: a name may be in several splits."""
        self._sha256: dict[str, str] | None = index.get("sha256")
        """Of the table and of the index itself; None in a cache from before it."""
        self._in_files: dict[str, Any] = index.get("windowed", {"paths": {}})
        self.num_repeated: int = index.get("repeated", 0)
        """Grey images that are read as colour."""
        self.windowed = {int(number): tuple(paths) for number, paths in self._in_files["paths"].items()}
        """Paths of the image and the mask below the root, of the samples that are read from their files."""

    def __len__(self) -> int:
        return len(self.ids)

    def under(self, class_names: Sequence[str]) -> Cache:
        """The same data under other names of classes, for an evaluation; there may be more than the labels hold."""
        named = copy.copy(self)
        named.class_names, named.num_classes = list(class_names), len(class_names)
        return named

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path, self.seed, self.root, self.grouping)

    @cached_property
    def splits(self) -> dict[str, list[int]]:
        """Positions of the samples of each split. Raises: DataError: too few samples to cut."""
        counts = self.table["class_counts"][:, :-1].tolist() if self.grouping.folds is not None else []
        return assign_splits(self.given_splits, self.seed, ids=self.ids, grouping=self.grouping, class_counts=counts)

    def find_copies(self) -> list[str]:
        """Name pictures of the same pixels in two splits: "train a = test b", in order of the samples."""
        by_digest: dict[bytes, tuple[str, str]] = {}
        split_of = {position: name for name, positions in self.splits.items() for position in positions}
        found = []
        for position, digest in enumerate(self.table["image_digests"]):
            if (split := split_of.get(position)) is None:
                continue
            first = by_digest.setdefault(digest.tobytes(), (split, self.names[position]))
            if first[0] != split:
                found.append(f"{first[0]} {first[1]} = {split} {self.names[position]}")
        return found

    def split(self, name: str) -> CachedSplit:
        """Give one split, or `all`.

        Raises:
            DataError: the data has no such split.
        """
        name = canonical_split(name)
        if name == ALL:
            return CachedSplit(self, name, range(len(self)))
        if name not in self.splits:
            sizes = ", ".join(f"{split} ({len(positions)})" for split, positions in self.splits.items())
            raise DataError(
                f'{self.name}: it has no split "{name}". It has: {sizes}, {ALL} ({len(self)}). Name one of these.'
            )
        return CachedSplit(self, name, self.splits[name])

    @cached_property
    def mean(self) -> list[float]:
        """Mean of each channel over the training split, in the units of the pixels (0..255 of 8 bits)."""
        return mean_and_std(self.table, self.split("train").positions)[0]

    @cached_property
    def std(self) -> list[float]:
        """Standard deviation of each channel over all pixels with data of the training split, in the same units."""
        return mean_and_std(self.table, self.split("train").positions)[1]

    def percentiles(self, shares: Sequence[float]) -> list[list[float]]:
        """Percentiles of each channel over the training split, one a share (0 to 100), off the histograms of moments.py."""
        bins = num_bins(self.dtype)
        path, shape = self.path / HISTOGRAMS, (len(self), self.channels, bins)
        _require_size(path, 4 * math.prod(shape), self.path)
        stored = watched(np.memmap(path, np.float32, mode="r", shape=shape))
        total = np.zeros(shape[1:])
        for position in self.split("train").positions:
            total += stored[position]
        return percentiles(total, self.dtype, shares)

    @cached_property
    def table(self) -> dict[str, np.ndarray]:
        """Facts about each of the n samples, as integers.

        heights, widths, image_offsets, label_offsets (n,), in numbers; what ChannelSums records; class_counts
        (n, K + 1), the last for ignored pixels; image_digests, label_digests (n, 32), by which pixels are known; and what
        `check` compares, images_checks, labels_checks, known_checks (n,).
        """
        return read_table(self.path, self._sha256)

    @cached_property
    def identity(self) -> dict[str, dict[str, Any]]:
        """The pixels and labels to train on, wherever its files lie: of each split that the source gives the number of images, and
        digests of all their pixels and of all their labels.

        A given test split is left out, as no training reads it.
        """
        found: dict[str, dict[str, Any]] = {}
        start = 0
        for name, size in self.given_splits.items():
            rows = slice(start, start + size)
            start += size
            if name != "test" or len(self.given_splits) == 1:
                parts = (("pixels", "image_digests"), ("labels", "label_digests"))
                digests = {word: hashlib.sha256(self.table[key][rows].tobytes()).hexdigest() for word, key in parts}
                found[name] = {"images": size, **digests}
        return found

    @cached_property
    def image_bytes(self) -> np.ndarray:
        """All images behind each other, as mapped memory: (numbers,) of their type, read-only."""
        return self._map(IMAGES, self.channels, self.dtype)

    @cached_property
    def label_bytes(self) -> np.ndarray:
        """All labels behind each other, as mapped memory: (pixels,) of label_dtype, read-only."""
        return self._map(LABELS, 1, self.label_dtype)

    @cached_property
    def known_bytes(self) -> np.ndarray:
        """Where all images have data, as mapped memory: (pixels,) uint8, 1 or 0, read-only."""
        return self._map(KNOWN, 1, np.dtype(np.uint8))

    def stored_image(self, position: int) -> np.ndarray:
        """Give the decoded image of a sample as it lies on the disk: (H, W, C)."""
        height, width = int(self.table["heights"][position]), int(self.table["widths"][position])
        start = int(self.table["image_offsets"][position])
        pixels = self.image_bytes[start : start + height * width * self.channels]
        return pixels.reshape(height, width, self.channels)

    def stored_label(self, position: int) -> np.ndarray:
        """Give the labels of a sample as they lie on the disk: (H, W) of label_dtype."""
        height, width = int(self.table["heights"][position]), int(self.table["widths"][position])
        start = int(self.table["label_offsets"][position])
        return self.label_bytes[start : start + height * width].reshape(height, width)

    def stored_known(self, position: int) -> np.ndarray:
        """Give where the image of a sample has data, (H, W) uint8, 1 or 0; only where `has_nodata`."""
        height, width = int(self.table["heights"][position]), int(self.table["widths"][position])
        start = int(self.table["label_offsets"][position])
        return self.known_bytes[start : start + height * width].reshape(height, width)

    def check(self, position: int) -> None:
        """Compare what the files hold of a decoded sample with the digests taken when it was made, once per process.

        Costs 0.4 ms for 1080 x 1920 pixels and labels, by whoever reads the sample first. An older cache has
        no quick digests: its SHA-256 are compared, which takes 27 ms.

        Raises:
            DataError: they differ.
        """
        if position in self._checked:
            return
        stored = {IMAGES: self.stored_image, LABELS: self.stored_label}
        if self.has_nodata:
            stored[KNOWN] = self.stored_known
        for name, read in stored.items():
            expected = self.table.get(check_key(name))
            if expected is not None:
                is_same = quick_digest(read(position)) == int(expected[position])
            elif name == KNOWN:
                continue
            else:
                key = {IMAGES: "image_digests", LABELS: "label_digests"}[name]
                is_same = digest_pixels(read(position)) == self.table[key][position].tobytes()
            if not is_same:
                raise DataError(
                    f"{self.path / name}: its content of {self.ids[position]} has changed since it was written. The cache is "
                    f"damaged: remove the folder {self.path}; `unet-dist prepare` makes it again."
                )
        self._checked.add(position)

    def check_all(self) -> None:
        """Compare every decoded sample with its digests, on a few threads. Raises: DataError: one differs."""
        decoded = (position for position in range(len(self)) if position not in self.windowed)
        with ThreadPoolExecutor(min(num_cores(), _MOST_THREADS)) as pool:
            for _ in pool.map(self.check, decoded):
                pass

    @cached_property
    def _checked(self) -> set[int]:
        return set()

    @cached_property
    def files(self) -> WindowedFiles:
        """The samples that are read from their files."""
        assert self.root is not None, (
            f"{self.path} holds samples that stay in files, and was opened without their folder"
        )
        rules = (PlaneRules if self.multi_label else LabelRules)(
            num_classes=self._in_files["num_classes"],
            ignore_index=(self._planes or {}).get("ignore_index", self.ignore_index),
            label_map=self._in_files["label_map"],
        )
        parts = {int(number): tuple(part) for number, part in self._in_files.get("parts", {}).items()}
        return WindowedFiles(
            self.root,
            self.windowed,
            rules,
            ImageRules.of(self._in_files["image_rules"]),
            parts=parts,
            channels=self._in_files.get("channels"),
        )

    @cached_property
    def num_pixels(self) -> int:
        """Pixels of all decoded samples."""
        sizes = self.table["heights"] * self.table["widths"]
        sizes[list(self.windowed)] = 0
        return int(sizes.sum())

    def _map(self, name: str, channels: int, dtype: np.dtype) -> np.ndarray:
        _require_size(self.path / name, self.num_pixels * channels * dtype.itemsize, self.path)
        return watched(np.memmap(self.path / name, dtype=dtype, mode="r"))


@dataclass(frozen=True)
class CachedSplit:
    """The samples of one split, by their number in it.

    Arrays are read-only views of mapped memory: slice first, then copy the part that you change or keep. A sample that stays in its
    files is given as a reader, and its label as what can be sliced.
    """

    cache: Cache
    name: str
    positions: Sequence[int]

    def __len__(self) -> int:
        return len(self.positions)

    @cached_property
    def ids(self) -> list[str]:
        """The name of each sample, no two alike."""
        return name_apart(self.cache.names, self.cache.ids, self.cache.given_splits, self.positions)

    def shape(self, index: int) -> tuple[int, int, int]:
        """Give (H, W, C) of a sample."""
        table, position = self.cache.table, self.positions[index]
        return int(table["heights"][position]), int(table["widths"][position]), self.cache.channels

    def image(self, index: int) -> np.ndarray | ImageReader:
        """Give the image of a sample: (H, W, C); C is 1 for grey. At its first use it is compared with its digest.

        An array, or a reader where it stays in its file or where the data set has pixels without data.

        Raises:
            DataError: its pixels or labels in the cache are not those that were written.
        """
        position, cache = self.positions[index], self.cache
        if position in cache.windowed:
            placement = Placement(has_nodata=cache.has_nodata)
            return WindowedImage(cache.files, position, self.shape(index), cache.dtype, placement)
        cache.check(position)
        pixels = cache.stored_image(position)
        return ArrayReader(pixels, known=cache.stored_known(position)) if cache.has_nodata else pixels

    def label(self, index: int) -> np.ndarray | WindowedLabel:
        """Give the labels of a sample, (H, W): class ids, all bits set where nothing counts; or packed planes."""
        height, width, _ = self.shape(index)
        if self.positions[index] in self.cache.windowed:
            return WindowedLabel(self.cache.files, self.positions[index], (height, width), self.cache.label_dtype)
        return self.cache.stored_label(self.positions[index])

    @cached_property
    def class_counts(self) -> np.ndarray:
        """Pixels of each class over the split: (K,) int64, ignored pixels not among them."""
        return self._counts[:-1]

    @cached_property
    def class_shares(self) -> list[float]:
        """Share of each class in the pixels that count: (K,), 0 to 1. Of overlapping classes each has its own."""
        if self.cache.multi_label:
            valid = self.cache.table["valid_counts"][list(self.positions)].sum(axis=0)
        else:
            valid = np.full(len(self.class_counts), self.class_counts.sum())
        return [int(count) / max(1, int(total)) for count, total in zip(self.class_counts, valid, strict=True)]

    @cached_property
    def num_ignored(self) -> int:
        """Pixels of the split that count nowhere."""
        return int(self._counts[-1])

    @cached_property
    def _counts(self) -> np.ndarray:
        return self.cache.table["class_counts"][list(self.positions)].sum(axis=0)  # (K + 1,)


def _require_size(path: Path, expected: int, cache: Path) -> None:
    actual = path.stat().st_size if path.is_file() else 0
    if actual != expected:
        raise DataError(
            f"{path}: {actual:,} bytes, expected {expected:,}. The cache is damaged: remove the folder "
            f"{cache}; `unet-dist prepare` makes it again."
        )


def _reopen(path: Path, seed: int, root: Path | None, grouping: Grouping) -> Cache:
    return Cache(path, seed=seed, root=root, grouping=grouping)
