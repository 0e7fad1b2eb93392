"""Image formats of installed packages.

Owns how such a format is found, by the end of a file's name or by its bytes, and how its faults differ from ours. An
entry point of the group unet_dist.formats has the end of the file names as its name (`plane` for leaf.plane) and an ImageFormat as
its object. So a folder is searched without importing anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from unet_dist.errors import ConfigError, RefusedError, UnetDistError
from unet_dist.imaging.encoded import Encoded
from unet_dist.imaging.image import Closing, ImageFormat, ImageReader, Opening, Placement
from unet_dist.imaging.limits import in_time
from unet_dist.imaging.values import PIXEL_TYPES
from unet_dist.registry import Registry, describe_error

OTHERS: Registry[ImageFormat] = Registry("format", "unet_dist.formats", {}, on_clash="Uninstall one of them.")


def other_suffixes() -> tuple[str, ...]:
    """Ends of file names, in lower case with the dot, that installed packages read."""
    return tuple(f".{name.lower()}" for name in OTHERS.names())


def find_other_format(encoded: Encoded) -> ImageFormat | None:
    """Find the format of an installed package that reads a file: by the end of its name, else by what it recognises.

    Raises:
        ConfigError: a package cannot be imported, or offers something else than an ImageFormat; names the package and the line.
        RefusedError: a format fails while it looks at the file; names its package and the line.
    """
    names = OTHERS.names()
    by_suffix = [name for name in names if f".{name.lower()}" == encoded.suffix]
    for name in by_suffix or names:
        part, path = OTHERS.load(name), OTHERS.find(name)
        if not isinstance(part, ImageFormat):
            raise ConfigError(
                f"format: {path} is a {type(part).__name__}, expected an ImageFormat. Mend or uninstall it."
            )
        with _blaming(path, encoded.name):
            is_found = bool(by_suffix) or part.recognises(encoded)
        if is_found:
            return replace(part, open=_Guard(part, path))
    return None


@dataclass(frozen=True)
class _Guard:
    """Opens an image by somebody else's format."""

    part: ImageFormat
    path: str

    def __call__(self, encoded: Encoded, opening: Opening) -> ImageReader:
        with _blaming(self.path, encoded.name):
            return _GuardedReader(self.part.open(encoded, opening), self.path, encoded.name)


class _GuardedReader(Closing):
    """Somebody else's reader: whatever it raises is the refusal of this one image."""

    def __init__(self, reader: ImageReader, path: str, name: str) -> None:
        self._reader, self._path, self._name = reader, path, name
        self.shape: tuple[int, int, int] = reader.shape
        self.dtype = np.dtype(getattr(reader, "dtype", np.uint8))  # a format from before there were others
        self.placement: Placement = reader.placement

    def read(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray:
        """Read a rectangle inside the image: (rows, cols, channels)."""
        with _blaming(self._path, self._name):
            pixels = in_time(self._name, lambda: self._reader.read(row_start, row_stop, col_start, col_stop))
        expected = (row_stop - row_start, col_stop - col_start, self.shape[2])
        if pixels.shape != expected or pixels.dtype != self.dtype or self.dtype.name not in PIXEL_TYPES:
            got = f"{self._path} gave a window of {self._name} as {pixels.dtype} of {pixels.shape}"
            wanted = self.dtype if self.dtype.name in PIXEL_TYPES else " or ".join(PIXEL_TYPES)
            raise RefusedError(got, f"Expected {wanted} of {expected}: mend that format.")
        return pixels

    def known(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray | None:
        """Tell where a rectangle has data: (rows, cols) bool; None everywhere."""
        if not self.placement.has_nodata:
            return None
        with _blaming(self._path, self._name):
            return self._reader.known(row_start, row_stop, col_start, col_stop)

    def close(self) -> None:
        """Let go of the file."""
        self._reader.close()


@contextmanager
def _blaming(path: str, name: str) -> Iterator[None]:
    try:
        yield
    except UnetDistError:
        raise
    except Exception as error:  # whatever somebody else's parser raises
        package = path.partition(":")[0].partition(".")[0]
        raise RefusedError(
            f"{name} cannot be read by {path}: {describe_error(error)}",
            f"If the file is sound, this is a fault of the package {package}.",
        ) from error
