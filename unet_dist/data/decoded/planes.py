"""Labels of overlapping classes: one plane per class, packed into one whole number per pixel.

Owns the code: two bits per class, 00 absent, 01 present, 11 counts nowhere. A label of a signed type is such planes, one of an
unsigned type class ids. So everything that moves labels moves planes, and in both a pixel that counts nowhere has all bits set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from unet_dist.data.decoded.label_map import MAX_ID, LabelMap
from unet_dist.data.decoded.labels import IGNORED, ignored_in
from unet_dist.data.decoded.mask_values import whole_numbers
from unet_dist.errors import ConfigError, RefusedError
from unet_dist.imaging.image import Closing, ImageReader, Stored
from unet_dist.wording import counted, listed

MAX_PLANES = 32
"""Classes that fit into the widest number."""

ABSENT, PRESENT = 0, 1
_REFUSED = 254
_BITS, _PER_BYTE = 2, 4
_MAX_LISTED = 8
_WHITE_IS_PRESENT = '{"0": 0, "1": 1, "255": 1}'


def planes_dtype(num_classes: int) -> np.dtype:
    """Choose the type that holds the planes of this number of classes: int16 up to 8, int32 up to 16, int64 up to 32."""
    assert 1 <= num_classes <= MAX_PLANES, num_classes
    return np.dtype(np.int16 if num_classes <= 8 else np.int32 if num_classes <= 16 else np.int64)


def holds_planes(dtype: np.dtype) -> bool:
    """Say whether labels of a type are planes."""
    return dtype.kind == "i"


def pack(planes: np.ndarray) -> np.ndarray:
    """Pack planes (H, W, K) uint8 of 0, 1 and IGNORED into (H, W). Bits beyond K are set: they count nowhere."""
    num_classes = planes.shape[2]
    dtype = planes_dtype(num_classes)
    packed = np.full(planes.shape[:2], -1, dtype=dtype)
    if num_classes < dtype.itemsize * _PER_BYTE:
        packed = np.left_shift(packed, _BITS * num_classes, dtype=dtype)
    else:
        packed[:] = 0
    for k in range(num_classes):
        packed |= (planes[:, :, k].astype(dtype) & 3) << dtype.type(_BITS * k)
    return packed


def class_columns(counts: np.ndarray, num_classes: int) -> dict[str, np.ndarray]:
    """Give what the table of samples keeps of (n, 256) counts of planes.

    Returns:
        class_counts (n, K + 1): pixels where each class is, and where all count nowhere; valid_counts (n, K): where each counts.
    """
    absent, present = counts[:, : 2 * num_classes : 2], counts[:, 1 : 2 * num_classes : 2]
    return {"class_counts": np.concatenate([present, counts[:, IGNORED:]], axis=1), "valid_counts": absent + present}


def plane_of(labels: np.ndarray, class_id: int) -> np.ndarray:
    """Give the plane of a class: packed labels -> uint8 of their shape, 0, 1 or IGNORED."""
    codes = ((labels >> labels.dtype.type(_BITS * class_id)) & labels.dtype.type(3)).astype(np.uint8)
    return np.where(codes > PRESENT, np.uint8(IGNORED), codes)


def is_class(labels: np.ndarray, class_id: int) -> np.ndarray:
    """Mark the pixels of a class in class ids or in planes."""
    marked: np.ndarray = (plane_of(labels, class_id) == PRESENT) if holds_planes(labels.dtype) else labels == class_id
    return marked


def count_labels(labels: np.ndarray) -> np.ndarray:
    """Count labels (..., H, W): (256,) int64, or (65536,) of ids of 16 bits.

    Of class ids the pixels of each, the last those that count nowhere. Of planes the entries 2 k and 2 k + 1 are the pixels where
    class k is absent and present, the last those where every class counts nowhere.
    """
    if not holds_planes(labels.dtype):
        return np.bincount(labels.ravel(), minlength=ignored_in(labels.dtype) + 1).astype(np.int64)
    size = labels.dtype.itemsize
    num_bytes = np.ascontiguousarray(labels).view(np.uint8).reshape(-1, size)
    counts = np.zeros(IGNORED + 1, dtype=np.int64)
    codes = np.arange(256)[:, None] >> _BITS * np.arange(_PER_BYTE) & 3  # (256, 4)
    for place in range(size):
        histogram = np.bincount(num_bytes[:, place], minlength=256)
        for value in (ABSENT, PRESENT):
            first = 2 * _PER_BYTE * place + value
            counts[first : first + 2 * _PER_BYTE : 2] = ((codes == value) * histogram[:, None]).sum(axis=0)
    counts[IGNORED] = int((labels == -1).sum())
    return counts


class PlaneRules:
    """Turns masks with a plane per class into planes: 1 where the class is, 0 where not, IGNORED where nothing counts.

    Args:
        num_classes: None until the masks have told.
        ignore_index: the value that counts nowhere; None takes 255.
        label_map: value of the masks -> 0, 1 or ignore_index.

    Raises:
        ConfigError: more classes than planes, or a value that leads to something else.
    """

    def __init__(
        self, *, num_classes: int | None, ignore_index: int | None, label_map: Mapping[str | int, int] | None
    ) -> None:
        if num_classes is not None and num_classes > MAX_PLANES:
            raise ConfigError(
                f"num_classes: got {num_classes} with multi_label, expected {MAX_PLANES} at most. Leave out classes, or train two "
                "runs."
            )
        if ignore_index is not None and not 1 < ignore_index <= MAX_ID:
            raise ConfigError(
                f"ignore_index: got {ignore_index} with multi_label, expected 2 to {MAX_ID}: 0 and 1 say whether a class is there. "
                "Give the value that marks pixels without a label, or leave it out."
            )
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.label_map = None if label_map is None else LabelMap.parse(label_map)
        ignored = IGNORED if ignore_index is None else ignore_index
        self._table = np.full(MAX_ID + 1, _REFUSED, dtype=np.uint8)
        meaning = {ABSENT: ABSENT, PRESENT: PRESENT, ignored: ignored}
        if self.label_map is not None:
            wrong = sorted({*self.label_map.by_id.values()} - {ABSENT, PRESENT, ignored})
            if wrong or self.label_map.by_colour:
                got = "colours" if self.label_map.by_colour else f"the target {wrong[0]}"
                raise ConfigError(
                    f"label_map: got {got} with multi_label, expected "
                    f"values of a plane that lead to 0, 1 or {ignored} (counts nowhere). Correct label_map."
                )
            meaning = dict(self.label_map.by_id)
        for value, target in meaning.items():
            self._table[value] = IGNORED if target == ignored else target

    @property
    def dtype(self) -> np.dtype:
        """Of the planes before they are packed."""
        return np.dtype(np.uint8)

    @property
    def takes_any_void(self) -> bool:
        """Whether the user has said what 255 means."""
        return self.ignore_index is not None or self.label_map is not None

    def reader_of(self, stored: Stored) -> Callable[[np.ndarray], np.ndarray]:
        """Return the way from the values of a mask, (H, W, C) as its file stores them, to planes (H, W, C) uint8.

        Raises:
            RefusedError: values that cannot be planes; and from the returned function, a value without a meaning.
        """
        if stored.lossy is not None:
            raise RefusedError(
                f"is a {stored.lossy}, which changes values when it compresses", "Write masks as PNG or TIFF."
            )
        if stored.palette is not None and self.label_map is None:
            raise RefusedError(
                "is a palette mask", "Write 0 and 1, or say what its indices mean, such as --label_map '{0: 0, 1: 1}'."
            )
        if stored.white_is_zero and stored.dtype != np.bool_:
            raise RefusedError("stores white as 0, so that its values may be upside down", "Write it with 0 as black.")
        nodata, named = stored.nodata, {} if self.label_map is None else self.label_map.by_id
        if nodata in (ABSENT, PRESENT) and nodata not in named:
            raise RefusedError(
                f"calls {nodata:g} no data, which also says whether a class is there",
                "Take the tag out, or say what the values mean: --label_map '{0: 0, 1: 1}'.",
            )

        def read(values: np.ndarray) -> np.ndarray:
            if stored.white_is_zero:
                values = ~values.astype(bool)
            if nodata is None or nodata in named:
                return self.map_values(values)
            missing = np.isnan(values) if np.isnan(nodata) else values == nodata
            return np.where(
                missing, np.uint8(IGNORED), self.map_values(np.where(missing, values.dtype.type(0), values))
            )

        return read

    def map_values(self, values: np.ndarray) -> np.ndarray:
        """Turn values of masks, of any shape, into 0, 1 and IGNORED. Raises: RefusedError: one has no meaning."""
        values = whole_numbers(values)
        inside = (values >= 0) & (values <= MAX_ID)
        planes = self._table[np.where(inside, values, 0)]
        refused = (planes == _REFUSED) | ~inside
        if refused.any():
            found, counts = np.unique(values[refused], return_counts=True)
            each = [f"{value} ({count:,} px)" for value, count in zip(found, counts, strict=True)]
            expected = "0, 1 or 255 (counts nowhere)" if not self.takes_any_void else "values that were explained"
            raise RefusedError(
                f"holds {listed(each, _MAX_LISTED)}, expected {expected} in the plane of a class",
                "Write 1 where the class is; or say what the values mean, such as --label_map '{0: 0, 128: 1}'.",
            )
        return planes

    def map_ids(self, planes: np.ndarray) -> np.ndarray:
        """Pack planes (H, W, K) that were drawn, of 0, 1 and 255. Raises: RefusedError: another number of planes, or value."""
        if planes.ndim != 3 or planes.shape[2] != self.num_classes:
            raise RefusedError(
                f"has shape {planes.shape}, expected (height, width, {self.num_classes}) with multi_label: a plane for each class",
                "Write such masks, as bands of a file or a file for each class; or remove multi_label: a label map "
                "has one class per pixel.",
            )
        return pack(self.map_values(planes))


def explain_void(counts: np.ndarray, names: Sequence[str]) -> str | None:
    """Say which planes hold 255 but never 1: 255 may be the class. None where there is none.

    Args:
        counts: (256,) of a whole data set, as count_labels has them.
        names: of the classes.
    """
    absent, present = counts[: 2 * len(names) : 2], counts[1 : 2 * len(names) : 2]
    valid = absent + present
    if not present.any():
        doubtful = list(names)
    else:  # where nothing counts in any plane, the image has no data, or all masks say so
        known = valid.max()
        doubtful = [name for name, here, some in zip(names, present, valid, strict=True) if not here and some < known]
    if not doubtful:
        return None
    return (
        f"no pixel is 1 in the masks of {listed(doubtful, _MAX_LISTED)}. If 255 is the class, set --label_map "
        f"'{_WHITE_IS_PRESENT}'; if it marks pixels without a label, --ignore_index 255."
    )


class StackedReader(Closing):
    """Masks of one class each, read as one mask with a plane per class.

    Args:
        readers: one per class, of one channel; closed in the end.
        names: what an error calls each.

    Raises:
        RefusedError: one has another size or several channels; all are closed.
    """

    def __init__(self, readers: list[ImageReader], names: list[str]) -> None:
        self._readers = readers
        height, width, _ = readers[0].shape
        self.shape = (height, width, len(readers))
        self.placement = readers[0].placement
        for reader, name in zip(readers, names, strict=True):
            if reader.shape != (height, width, 1):
                self.close()
                raise RefusedError(
                    f"mask {name} is {reader.shape[0]} x {reader.shape[1]} with {counted(reader.shape[2], 'channel')}, expected "
                    f"{height} x {width} with 1, as {names[0]}",
                    "Write the masks of all classes alike.",
                )

    def read(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray:
        """Read a rectangle inside the image: (rows, cols, planes)."""
        return np.concatenate([one.read(row_start, row_stop, col_start, col_stop) for one in self._readers], axis=2)

    def close(self) -> None:
        """Let go of the files."""
        for reader in self._readers:
            reader.close()


class PackedReader(Closing):
    """A mask with a plane per class, as one packed channel.

    Args:
        planes: the mask, of 0, 1 and IGNORED.
        num_classes: expected planes.
        name: what an error calls the mask.

    Raises:
        RefusedError: another number of planes; the mask is closed.
    """

    def __init__(self, planes: ImageReader, num_classes: int, name: str) -> None:
        height, width, count = planes.shape
        if count != num_classes:
            planes.close()
            raise RefusedError(
                f"{name} has {counted(count, 'band')}, expected {num_classes}: one for each class",
                "Write a band for each class, in the order of the classes; or correct the names of the classes or num_classes.",
            )
        self._planes = planes
        self.shape = (height, width, 1)
        self.dtype = planes_dtype(num_classes)
        self.placement = planes.placement

    def read(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray:
        """Read a rectangle inside the image: (rows, cols, 1)."""
        return pack(self._planes.read(row_start, row_stop, col_start, col_stop))[:, :, None]

    def close(self) -> None:
        """Let go of the file."""
        self._planes.close()
