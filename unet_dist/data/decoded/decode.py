"""From the encoded pictures of a pair to pixels and class ids.

Owns the checks of one pair. The pixels come in by the reader that predictions use; here are the rules that make class ids
of a mask's values, and the sums of one pair. Knows nothing of sources or the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unet_dist.data.decoded.labels import LabelRules, ignored_in
from unet_dist.data.decoded.moments import ChannelSums
from unet_dist.data.decoded.planes import PackedReader, PlaneRules, StackedReader, count_labels
from unet_dist.data.sources.fingerprint import digest_pixels
from unet_dist.data.sources.pairs import RawPair
from unet_dist.errors import RefusedError
from unet_dist.imaging.encoded import Encoded
from unet_dist.imaging.image import DEFAULT_CACHE_BYTES, ImageReader, Interpret, Stored, ValueRange
from unet_dist.imaging.limits import in_time, require_decodable
from unet_dist.imaging.reader import open_image
from unet_dist.imaging.readers import ArrayReader, BandsReader
from unet_dist.imaging.values import nodata_of
from unet_dist.imaging.views import PartReader, with_channels


class Header(NamedTuple):
    """Facts about an image before its pixels are read."""

    shape: tuple[int, int, int]
    """(H, W, C)."""
    dtype: str = "uint8"
    has_nodata: bool = False
    """Whether some pixels may have no data."""
    num_planes: int | None = None
    """Planes of the mask of overlapping classes, where its file says so."""

    @classmethod
    def of(cls, reader: ImageReader) -> Header:
        """What an opened image says."""
        return cls(reader.shape, str(reader.dtype), reader.placement.has_nodata)


@dataclass(frozen=True)
class ImageRules:
    """How the images of a data set are read, as `Opening` and `open_image` say it."""

    value_range: ValueRange | None = None
    nodata: float | None = None
    bands: tuple[int | str, ...] | None = None

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> ImageRules:
        """What `asdict` gave, out of JSON."""
        limits, bands = record["value_range"], record["bands"]
        return cls(
            None if limits is None else (limits[0], limits[1]),
            record["nodata"],
            None if bands is None else tuple(bands),
        )


@dataclass(frozen=True)
class DecodedPair:
    """A pair as pixels, what the statistics are made from, and the digests that identify it."""

    image: np.ndarray  # (H, W, C)
    label: np.ndarray  # (H, W) uint8 or uint16, all bits set where nothing counts; or packed planes
    known: np.ndarray | None  # (H, W) bool, where the image has data; None everywhere
    has_gaps: bool  # whether a pixel has no data
    moments: dict[str, np.ndarray]  # as ChannelSums records them
    histogram: np.ndarray  # (C, bins) int64
    class_counts: np.ndarray  # int64, as count_as has them
    image_digest: bytes  # 32, as PixelDigest gives them
    label_digest: bytes

    def without_pixels(self) -> DecodedPair:
        """Keep the sums and digests alone, so that a whole data set of these stays small."""
        nothing = np.empty(0, dtype=np.uint8)
        return replace(self, image=nothing, label=nothing, known=None, histogram=nothing)


def open_image_of(
    pair: RawPair, max_pixels: int, rules: ImageRules, *, cache_bytes: int = DEFAULT_CACHE_BYTES
) -> ImageReader:
    """Open the image of a pair. Raises: RefusedError: it cannot be used."""
    if isinstance(pair.image, np.ndarray):
        name = f"image {pair.image_name}"
        nodata = None if rules.nodata is None else nodata_of(rules.nodata, pair.image.dtype)
        reader: ImageReader = ArrayReader(pair.image, value_range=rules.value_range, nodata=nodata, name=name)
        return with_channels(reader if rules.bands is None else BandsReader(reader, rules.bands, name), pair.channels)
    image = open_image(
        Encoded(pair.image, f"image {pair.image_name}"),
        max_pixels=max_pixels,
        value_range=rules.value_range,
        nodata=rules.nodata,
        bands=rules.bands,
        cache_bytes=cache_bytes,
        channels=pair.channels,
    )
    return image if pair.part is None else PartReader(image, pair.part)


Rules = LabelRules | PlaneRules


def open_mask_of(
    pair: RawPair, rules: Rules, max_pixels: int, *, cache_bytes: int = DEFAULT_CACHE_BYTES
) -> ImageReader:
    """Open the mask of a pair as class ids, (H, W, 1), or as packed planes. Raises: RefusedError: it cannot be used."""
    mask = _open_stored(pair, rules, max_pixels, cache_bytes)
    if isinstance(rules, PlaneRules):
        assert rules.num_classes is not None, "the masks have told"
        mask = PackedReader(mask, rules.num_classes, f"mask {pair.mask_name}")
    return mask if pair.part is None else PartReader(mask, pair.part)


def _open_stored(pair: RawPair, rules: Rules, max_pixels: int, cache_bytes: int) -> ImageReader:
    """Open a mask as class ids, or as planes (H, W, K)."""
    names = (
        [pair.mask_name]
        if not isinstance(pair.mask, tuple)
        else [f"{path.parent.name}/{path.name}" for path in pair.mask]
    )
    contents = pair.mask if isinstance(pair.mask, tuple) else (pair.mask,)
    readers: list[ImageReader] = []
    for content, name in zip(contents, names, strict=True):
        assert isinstance(content, bytes | Path), pair
        encoded = Encoded(content, f"mask {name}")
        readers.append(
            open_image(
                encoded,
                max_pixels=max_pixels,
                interpret=_interpret(rules, encoded.name),
                keeps_channels=isinstance(rules, PlaneRules),
                cache_bytes=cache_bytes,
            )
        )
    return readers[0] if len(readers) == 1 else StackedReader(readers, names)


def read_header(pair: RawPair, rules: Rules, max_pixels: int, image_rules: ImageRules) -> Header:
    """Read size, channels and type of a pair from the headers alone.

    Raises:
        RefusedError: image and mask differ in size, or either cannot be used.
    """
    with open_image_of(pair, max_pixels, image_rules) as image:
        header = Header.of(image)
    return (
        header
        if callable(pair.mask) or isinstance(pair.mask, np.ndarray)
        else look_at_mask(pair, rules, max_pixels, header)
    )


def look_at_mask(pair: RawPair, rules: Rules, max_pixels: int, header: Header) -> Header:
    """Read the mask's header too: how many planes it has. Raises: RefusedError: image and mask differ in size."""
    with _open_stored(pair, rules, max_pixels, DEFAULT_CACHE_BYTES) as mask:
        whole = mask if pair.part is None else PartReader(mask, pair.part)
        check_sizes(pair, header.shape, whole.shape[:2])
        return header._replace(num_planes=mask.shape[2]) if isinstance(rules, PlaneRules) else header


def decode_pair(
    pair: RawPair,
    rules: Rules,
    max_pixels: int,
    image_rules: ImageRules = ImageRules(),
) -> DecodedPair:
    """Decode an image and its mask, all checks included. Labels count nowhere where the image has no data.

    Raises:
        RefusedError: either cannot be used; the message names the file and the reason.
    """
    with open_image_of(pair, max_pixels, image_rules) as reader:
        height, width, channels = reader.shape
        if not isinstance(pair.image, np.ndarray):
            name, bytes_per_px = f"image {pair.image_name}", channels * np.dtype(reader.dtype).itemsize
            require_decodable(height, width, max_pixels, name, bytes_per_px=bytes_per_px)
        image = reader.read(0, height, 0, width)
        known = reader.known(0, height, 0, width)
    if callable(pair.mask) or isinstance(pair.mask, np.ndarray):
        drawn = in_time(f"mask {pair.mask_name}", lambda: _drawn(pair))  # of outlines, which may be any number
        with naming(f"mask {pair.mask_name}"):
            label = rules.map_ids(drawn)
    else:
        with open_mask_of(pair, rules, max_pixels) as mask:
            require_decodable(*mask.shape[:2], max_pixels, f"mask {pair.mask_name}")
            label = mask.read(0, mask.shape[0], 0, mask.shape[1])[..., 0]
    check_sizes(pair, image.shape, label.shape)
    known = None if known is None or known.all() else known
    label = label if known is None else np.where(known, label, label.dtype.type(ignored_in(label.dtype)))
    sums = ChannelSums(channels, image.dtype)
    sums.add(image, known)
    return DecodedPair(
        image=image,
        label=label,
        known=known,
        has_gaps=known is not None,
        moments=sums.record(),
        histogram=sums.histogram,
        class_counts=count_as(rules, label),
        image_digest=digest_pixels(image),
        label_digest=digest_pixels(label),
    )


def _drawn(pair: RawPair) -> np.ndarray:
    assert not isinstance(pair.mask, bytes | Path | tuple), pair
    with naming(f"mask {pair.mask_name}"):
        return pair.mask() if callable(pair.mask) else pair.mask


def count_as(rules: Rules, labels: np.ndarray) -> np.ndarray:
    """Count labels that the rules made: (256,), or of ids of 16 bits (limit + 1,), the last those that count nowhere.

    A data set keeps these for each sample, so 65,536 of each would be too many where a few hundred classes are possible.
    """
    counts = count_labels(labels)
    return (
        counts if isinstance(rules, PlaneRules) or len(counts) <= 256 else np.append(counts[: rules.limit], counts[-1])
    )


def _interpret(rules: Rules, name: str) -> Interpret:
    """The way from the stored values of a mask to its class ids, whose refusals bear its name."""

    def interpret(stored: Stored) -> Callable[[np.ndarray], np.ndarray]:
        with naming(name):
            to_classes = rules.reader_of(stored)

        def map_values(values: np.ndarray) -> np.ndarray:
            with naming(name):
                found = to_classes(values)
                return found if found.ndim == 3 else found[..., None]

        return map_values

    return Interpret(interpret, rules.dtype)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Put the name of a file before its fault."""
    try:
        yield
    except RefusedError as error:
        error.put_name(name)
        raise


def check_sizes(pair: RawPair, image_shape: tuple[int, ...], mask_size: tuple[int, ...]) -> None:
    """Refuse a mask of another (height, width) than its image's (H, W, C). Raises: RefusedError."""
    image_size = tuple(image_shape[:2])
    if image_size != tuple(mask_size):
        is_turned = image_size == tuple(mask_size)[::-1]
        raise RefusedError(
            f"image {pair.image_name} is {image_size[0]} x {image_size[1]} and its mask {pair.mask_name} is "
            f"{mask_size[0]} x {mask_size[1]} (height x width)",
            "One of the two may say that it is stored turned (the orientation of Exif), and the other not: save both upright."
            if is_turned
            else "Its channels come first: write the image as (height, width, channels)."
            if tuple(image_shape[1:]) == tuple(mask_size)
            else "A mask has one id for each pixel of its image: write it again at that size, without interpolation.",
        )
