"""An image before anything of it is decoded: a file, or the bytes of a row of a table.

Owns the way to its bytes and the boundary to other people's parsers: whatever one of them raises is the refusal of this
one image, by name. Knows no format.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np

from unet_dist.errors import RefusedError, UnetDistError
from unet_dist.storage.mapped import watched

_PAGE = re.compile(r"(.+)#([1-9]\d*)")


def page_path(path: Path, number: int) -> Path:
    """Name one image of a stack, counted from 1: stack.tif#3."""
    return path.with_name(f"{path.name}#{number}")


def split_page(path: Path) -> tuple[Path, int | None]:
    """Give the file and the number of the image in it, None where no stack is named so.

    >>> split_page(Path("stack.tif#3"))
    (PosixPath('stack.tif'), 3)
    """
    match = _PAGE.fullmatch(path.name)
    if match is None or os.path.exists(path):  # which says no of a name that is too long
        return path, None
    return path.with_name(match[1]), int(match[2])


def stem_of(path: Path) -> str:
    """Give the name of an image without the end of its file's name: stack_p0003 for stack.tif#3."""
    file, number = split_page(path)
    return file.stem if number is None else f"{file.stem}_p{number:04d}"


@dataclass(frozen=True)
class Encoded:
    """An image as its bytes.

    Attributes:
        content: the file, the folder of a Zarr array or group, or the bytes themselves.
        name: what a message calls the image.
        page: of a stack, counted from 1; None for a file of one image. A path may name it, too: stack.tif#3.
    """

    content: Path | bytes
    name: str
    page: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.content, Path):
            file, page = split_page(self.content)
            if page is not None:
                object.__setattr__(self, "content", file)  # frozen to all others
                object.__setattr__(self, "page", page)

    @classmethod
    def of(cls, content: str | os.PathLike | bytes, name: str | None = None) -> Encoded:
        """Name an image, by its path where nothing better is known."""
        if isinstance(content, bytes):
            return cls(content, name or "the image")
        return cls(Path(content), name or str(content))

    @property
    def path(self) -> Path | None:
        """The file or folder, None for bytes in memory."""
        return None if isinstance(self.content, bytes) else self.content

    @property
    def suffix(self) -> str:
        """The end of the file's name in lower case, such as .png; empty for bytes."""
        return "" if isinstance(self.content, bytes) else self.content.suffix.lower()

    @cached_property
    def is_folder(self) -> bool:
        """Whether it is a folder, such as that of a Zarr array."""
        return isinstance(self.content, Path) and self.content.is_dir()

    @cached_property
    def head(self) -> bytes:
        """The first 16 bytes, which identify the format.

        Raises:
            RefusedError: there is no such file, it may not be read, or it is no file: a pipe would never answer.
        """
        if isinstance(self.content, bytes):
            return self.content[:16]
        try:
            if not stat.S_ISREG(self.content.stat().st_mode):
                raise RefusedError(
                    f"{self.name} is not a regular file", "Expected an image file: remove it, or name a file."
                )
            with self.content.open("rb") as file:
                return file.read(16)
        except FileNotFoundError as error:
            raise RefusedError(f"{self.name} does not exist", "Check the path.") from error
        except OSError as error:
            reason = f"{self.name} cannot be opened: {error.strerror}"
            raise RefusedError(reason, "Check the path and your permissions.") from error

    @cached_property
    def num_bytes(self) -> int:
        """Size of the file."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    def open(self) -> BinaryIO:
        """Open for reading, from the start."""
        return io.BytesIO(self.content) if isinstance(self.content, bytes) else self.content.open("rb")

    def read(self) -> bytes:
        """Read all of it."""
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()

    def map(self, dtype: np.dtype, offset: int, shape: tuple[int, ...]) -> np.ndarray:
        """View values that lie uncompressed in the file, as mapped memory."""
        if isinstance(self.content, bytes):
            count = int(np.prod(shape, dtype=np.int64))
            return np.frombuffer(self.content, dtype, count, offset).reshape(shape)
        return watched(np.memmap(self.content, dtype, mode="r", offset=offset, shape=shape))


@contextmanager
def parsing(name: str, *, kind: str = "image") -> Iterator[None]:
    """Turn whatever a parser raises into the refusal of the one image it was given.

    Parsers answer damaged bytes with what these lead to: struct.error, ZeroDivisionError, IndexError.

    Args:
        name: of the image.
        kind: what it was taken for, such as TIFF.

    Raises:
        RefusedError: the parser raised; our own refusals pass as they are.
    """
    try:
        yield
    except UnetDistError:
        raise
    except MemoryError as error:
        raise RefusedError(
            f"{name} takes more memory than there is",
            "Free some, or write it as tiled TIFF or Zarr, which are read by windows.",
        ) from error
    except Exception as error:
        strerror = error.strerror if isinstance(error, OSError) else None
        reason = strerror or re.sub(r"\s*(<_io.*>|'/.*')$", "", str(error).strip()).rstrip(".")
        is_ours = isinstance(error, OSError) and strerror is not None
        words = reason.splitlines()[0] if reason else type(error).__name__
        if not isinstance(error, (OSError, ValueError, SyntaxError)):
            words = f"{type(error).__name__}: {words}"
        if kind != "image":
            raise RefusedError(
                f"{name} is a damaged or truncated {kind}: {words}", "Copy it again, or write it anew."
            ) from error
        raise RefusedError(
            f"{name} cannot be read ({words})",
            "Check the path and your permissions."
            if is_ours
            else "The file is damaged, truncated or no image: fetch it again, or leave it out.",
        ) from error
