"""Checks every pair of a source and writes the decoded cache.

Owns the order of the work: sizes from the headers, free space, decoding by threads into place, the table of sums. That
one process does it and a cache appears whole or not at all is `once.py`.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from unet_dist.data.decoded.cache import Cache
from unet_dist.data.decoded.classes import resolve_num_classes
from unet_dist.data.decoded.decode import DecodedPair, Header, Rules, decode_pair, read_header
from unet_dist.data.decoded.guesses import explain_ids
from unet_dist.data.decoded.labels import LabelRules
from unet_dist.data.decoded.own_names import read_names
from unet_dist.data.decoded.pixel_files import PixelWriter, check_key
from unet_dist.data.decoded.planes import PlaneRules, class_columns, explain_void, planes_dtype
from unet_dist.data.decoded.problems import Problems
from unet_dist.data.decoded.sample_names import record_names
from unet_dist.data.decoded.sealed import FORMAT_VERSION, INDEX, TABLE, digest_index
from unet_dist.data.decoded.settings import CacheSettings, is_whole, locate_cache
from unet_dist.data.decoded.windowed import needs_windows, read_windowed_header, scan_pair
from unet_dist.data.sources.groups import Grouping
from unet_dist.data.sources.pairs import RawPair, Source
from unet_dist.data.sources.splits import NO_GROUPING
from unet_dist.errors import DataError, RefusedError
from unet_dist.imaging.image import DEFAULT_MAX_PIXELS
from unet_dist.imaging.views import Part
from unet_dist.machine.cores import num_cores
from unet_dist.storage.files import digest, permitted
from unet_dist.storage.once import make_once
from unet_dist.wording import counted, listed

Progress = Callable[[str, int, int], None]
"""Called as (phase, done, total)."""

_MOST_THREADS = 16
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Seen = TypeVar("_Seen", int, str)


@permitted()
def prepare(
    source: Source,
    settings: CacheSettings,
    *,
    seed: int,
    cache_path: str | Path | None = None,
    num_threads: int | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
    grouping: Grouping = NO_GROUPING,
) -> Cache:
    """Open the cache of a source, making it first where it is not there; several processes may call this at once.

    Args:
        seed: decides the splits where the source has none; the cache itself does not depend on it.
        num_threads: threads that decode, None for one per core this process may use, at most 16.
        max_pixels: an image with more is read by windows from its file (TIFF, Zarr), or refused by its header.
        progress: called from the calling thread.
        say: takes a line for the user.
        grouping: which samples stay together where they are split, and folds.

    Raises:
        DataError: pairs that cannot be used, all of them counted and the first ten named; no space; an empty split.
        ConfigError: the settings are out of range or contradict the source.
    """
    say = say or (lambda line: None)
    path = locate_cache(source, settings, cache_path)

    def write(folder: Path) -> None:
        _Builder(
            source, settings, max_pixels, num_threads or min(num_cores(), _MOST_THREADS), progress or _no_progress
        ).write(folder)

    make_once(path, write, is_whole=is_whole, say=say)
    cache = Cache(path, seed=seed, root=source.files_root, grouping=grouping)
    if cache.num_repeated:
        say(f"{cache.name}: {counted(cache.num_repeated, 'grey image')} read as colour, grey repeated (in_channels: 3)")
    copies: list[str] = []
    with suppress(DataError):  # too few samples to cut, which is for whoever asks for a split
        copies = cache.find_copies()
    if copies:
        say(
            f"{cache.name}: {counted(len(copies), 'picture')} of one split {'is' if len(copies) == 1 else 'are'} in another, "
            f"pixel by pixel: {listed(copies)}. Figures of that split are too good: remove the copies."
        )
    return cache


class _Builder:
    """One pass over a source, into a folder that nobody else sees yet."""

    def __init__(
        self, source: Source, settings: CacheSettings, max_pixels: int, num_threads: int, progress: Progress
    ) -> None:
        self.source, self.settings, self.max_pixels = source, settings, max_pixels
        self.num_threads, self.progress = num_threads, progress
        self.splits = source.splits
        self.positions = [(split, index) for split, size in self.splits.items() for index in range(size)]
        empty = [split for split, size in self.splits.items() if size == 0]
        if not self.positions:
            raise DataError(
                f"{source.name}: got no image and no mask, expected at least one pair. Name the right folder: --data_path, "
                "--images_folder, --masks_folder."
            )
        if empty:
            raise DataError(
                f"{source.name}: the split {', '.join(empty)} is empty. "
                "Add pairs of an image and a mask to it, or remove the split."
            )
        id_names = read_names(source, settings)
        self.num_classes = resolve_num_classes(settings, id_names, source.name)
        self.id_names = id_names or {}
        self.rules = self._make_rules()
        self.problems = Problems()
        self.windowed: dict[int, tuple[str, str]] = {}  # paths of what stays in its files
        self.parts: dict[int, Part] = {}  # and the rectangles, where these are not all of them
        self.num_repeated = 0

    def write(self, folder: Path) -> None:
        """Write all files of the cache into `folder`."""
        num_pairs = len(self.positions)
        with ThreadPoolExecutor(self.num_threads, thread_name_prefix="decode") as pool:
            headers = self._read_headers(pool)
            self._repeat_grey(headers)
            remedy = "as grey, or all as RGB; or set --in_channels 3, which reads grey as colour"
            self._check_alike(headers, lambda header: header.shape[2], _colour, remedy)
            self._check_alike(headers, lambda header: header.dtype, lambda dtype: f"of {dtype} values", "of one type")
            self._count_planes(headers)
            writer = None
            records: list[tuple[str, DecodedPair]] = []
            if not self.problems.total:
                kept = [header for header in headers if header is not None]
                dtype = planes_dtype(self.num_classes or 1) if self.settings.multi_label else self.rules.dtype
                writer = PixelWriter(folder, kept, self.windowed, dtype)
            try:
                records = self._decode_all(pool, headers, writer)
            finally:
                if writer is not None:
                    writer.close(keeps_known=any(record.has_gaps for _, record in records))
        self.problems.raise_if_any(self.source.name, num_pairs)
        assert writer is not None
        self._write_index(folder, writer, records)

    def _read_headers(self, pool: ThreadPoolExecutor) -> list[Header | None]:
        if self.source.fixed_shape is not None:
            return [Header(self.source.fixed_shape)] * len(self.positions)
        image_rules = self.settings.image_rules

        def read(number: int) -> Header | RefusedError:
            try:
                pair = self.source.read_pair(*self.positions[number])
                if self.source.files_root is not None and needs_windows(pair, self.max_pixels, image_rules):
                    self.windowed[number] = _paths_below(self.source.files_root, pair)
                    if pair.part is not None:
                        self.parts[number] = pair.part
                    return read_windowed_header(pair, self.rules, image_rules)
                return read_header(pair, self.rules, self.max_pixels, image_rules)
            except RefusedError as error:
                return error

        headers: list[Header | None] = []
        numbers = range(len(self.positions))
        for header in self._watched("sizes", _map_bounded(pool, read, numbers, self.num_threads)):
            if isinstance(header, RefusedError):
                self.problems.add(header)
            headers.append(None if isinstance(header, RefusedError) else header)
        return headers

    def _repeat_grey(self, headers: list[Header | None]) -> None:
        """Count grey images as colour where the user says so: their channel is repeated."""
        for i, header in enumerate(headers):
            if header is not None and header.shape[2] == 1 and self.settings.channels == 3:
                headers[i] = header._replace(shape=(*header.shape[:2], 3))
                self.num_repeated += 1

    def _check_alike(
        self,
        headers: list[Header | None],
        look: Callable[[Header], _Seen],
        in_words: Callable[[_Seen], str],
        remedy: str,
    ) -> None:
        """Refuse the images that differ from most others in type or channels."""
        counts = Counter(look(header) for header in headers if header is not None)
        if len(counts) < 2:
            return
        most = max(counts, key=lambda seen: counts[seen])
        for i, header in enumerate(headers):
            if header is not None and (odd := look(header)) != most:
                name = self.source.read_pair(*self.positions[i]).image_name
                self.problems.add(
                    RefusedError(
                        f"image {name} is {in_words(odd)}, and {counts[most]} others are {in_words(most)}",
                        f"Write all images {remedy}.",
                    )
                )
                headers[i] = None

    def _count_planes(self, headers: list[Header | None]) -> None:
        """Let the masks say how many classes overlap, where nobody has; those of other numbers are refused when they are read."""
        if isinstance(self.rules, PlaneRules) and self.num_classes is None:
            counts = Counter(header.num_planes for header in headers if header is not None and header.num_planes)
            if not counts and not self.problems.total:
                raise DataError(f"{self.source.name}: nobody says how many classes overlap. Set --num_classes.")
            self.num_classes = max(counts, key=lambda found: counts[found]) if counts else 1
            self.rules = self._make_rules()

    def _make_rules(self) -> Rules:
        said = self.settings
        kind = PlaneRules if said.multi_label else LabelRules
        return kind(num_classes=self.num_classes, ignore_index=said.ignore_index, label_map=said.label_map)

    def _decode_all(
        self, pool: ThreadPoolExecutor, headers: list[Header | None], writer: PixelWriter | None
    ) -> list[tuple[str, DecodedPair]]:
        image_rules = self.settings.image_rules

        def decode(number: int) -> tuple[str, DecodedPair] | RefusedError:
            try:
                pair = replace(self.source.read_pair(*self.positions[number]), channels=self.settings.channels)
                if number in self.windowed:
                    decoded = scan_pair(pair, self.rules, image_rules)
                else:
                    decoded = decode_pair(pair, self.rules, self.max_pixels, image_rules)
            except RefusedError as error:
                return error
            if writer is not None:
                writer.write_histogram(number, decoded)
                if number not in self.windowed:
                    got, expected = (decoded.image.shape, str(decoded.image.dtype)), headers[number]
                    assert expected is not None and got == expected[:2], (pair.image_name, got, expected)  # noqa: PT018
                    writer.write(number, decoded)
            return pair.id, decoded.without_pixels()

        usable = [number for number, header in enumerate(headers) if header is not None]
        records: list[tuple[str, DecodedPair]] = []
        for result in self._watched("decode", _map_bounded(pool, decode, usable, self.num_threads)):
            if isinstance(result, RefusedError):
                self.problems.add(result)
            else:
                records.append(result)
        return records

    def _check_ids(self, counts: np.ndarray, names: list[str]) -> None:
        """Refuse ids that nobody explained, and a split with nothing to learn or to measure: (n, ids + 1), as count_as has them."""
        found = counts[:, :-1].sum(axis=0)
        if isinstance(self.rules, PlaneRules):
            problem = None if self.rules.takes_any_void else explain_void(found, names)
            if problem:
                raise DataError(f"{self.source.name}: {problem}")
        elif self.num_classes is None and self.settings.label_map is None and (problem := explain_ids(counts[:, :-1])):
            raise DataError(f"{self.source.name}: {problem}")
        start = 0
        for split, num_pairs in self.splits.items():
            valid = counts[start : start + num_pairs, :-1].sum()
            start += num_pairs
            if valid == 0:
                where = "every pixel" if len(self.splits) == 1 else f"every pixel of the split {split}"
                raise DataError(
                    f"{self.source.name}: {where} is ignored, so that no valid pixel is left to learn from or to measure. "
                    "Check ignore_index, label_map and the masks."
                )

    def _write_index(self, folder: Path, writer: PixelWriter, records: list[tuple[str, DecodedPair]]) -> None:
        counts = np.stack([record.class_counts for _, record in records])  # (n, ids + 1)
        num_classes = self.num_classes or int(counts[:, :-1].sum(axis=0).nonzero()[0].max(initial=-1)) + 1
        names = [self.id_names.get(i, f"class_{i}") for i in range(num_classes)]
        self._check_ids(counts, names)
        shapes = np.array([header.shape for header in writer.headers], dtype=np.int64)
        columns: dict[str, Any] = {
            name: np.stack([record.moments[name] for _, record in records]) for name in records[0][1].moments
        }
        columns |= {check_key(name): checks for name, checks in writer.checks.items()}
        if self.settings.multi_label:
            columns |= class_columns(counts, num_classes)
        else:
            columns["class_counts"] = counts[:, [*range(num_classes), -1]]
        with (folder / TABLE).open("wb") as file:
            np.savez(
                file,
                heights=shapes[:, 0],
                widths=shapes[:, 1],
                image_offsets=writer.image_offsets,
                label_offsets=writer.label_offsets,
                **columns,
                image_digests=_rows([record.image_digest for _, record in records]),
                label_digests=_rows([record.label_digest for _, record in records]),
            )
            file.flush()
            os.fsync(file.fileno())
        index: dict[str, Any] = {
            "version": FORMAT_VERSION,
            "name": self.source.name,
            "num_classes": num_classes,
            "class_names": names,
            "ignore_index": None if self.settings.multi_label else self.settings.ignore_index,
            "channels": int(shapes[0, 2]),
            "dtype": str(writer.dtype),
            **({"label_dtype": "uint16"} if self.rules.dtype == np.uint16 else {}),
            "has_nodata": any(record.has_gaps for _, record in records),
            "splits": self.splits,
            **record_names([name for name, _ in records]),
            "repeated": self.num_repeated,
        }
        if self.windowed:
            label_map = {str(key): target for key, target in (self.settings.label_map or {}).items()}
            index["windowed"] = {
                "paths": self.windowed,
                "num_classes": num_classes if self.settings.multi_label else self.num_classes,
                "label_map": label_map or None,
                "image_rules": asdict(self.settings.image_rules),
                "channels": self.settings.channels,
                "parts": self.parts,
            }
        if self.settings.multi_label:
            index["multi_label"] = {"ignore_index": self.settings.ignore_index}
        index["sha256"] = sha256 = {TABLE: digest(folder / TABLE)}
        sha256[INDEX] = digest_index(index)
        with (folder / INDEX).open("w", encoding="utf-8") as file:
            json.dump(index, file)
            file.flush()
            os.fsync(file.fileno())

    def _watched(self, phase: str, results: Iterator[_Result]) -> Iterator[_Result]:
        for done, result in enumerate(results, start=1):
            self.progress(phase, done, len(self.positions))
            yield result


def _rows(digests: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(len(digests), -1)  # (n, 32)


def _paths_below(root: Path, pair: RawPair) -> tuple[str, str]:
    """Give the paths of image and mask below the root, by which they are found again where the folder has moved."""
    assert isinstance(pair.image, Path), pair
    assert isinstance(pair.mask, Path), pair
    return pair.image.relative_to(root).as_posix(), pair.mask.relative_to(root).as_posix()


def _colour(channels: int) -> str:
    return {1: "grey", 3: "in colour"}.get(channels, f"of {channels} channels")


def _map_bounded(
    pool: ThreadPoolExecutor, function: Callable[[_Item], _Result], items: Iterable[_Item], num_threads: int
) -> Iterator[_Result]:
    """Map in order with a few items ahead at most, so that memory does not grow with their number."""
    waiting: list[Future[_Result]] = []
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= 2 * num_threads:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()
    finally:
        for future in waiting:
            future.cancel()


def _no_progress(phase: str, done: int, total: int) -> None:
    pass
