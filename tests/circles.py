"""Small pictures of discs that overlap, in two colours, and their masks: a plane for each colour."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

NAMES = ("red", "blue")
SIDE = 64


def draw_scene(seed: int, side: int = SIDE, num_classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Give an image (H, W, 3) uint8 and its planes (H, W, K) of 0 and 1."""
    random = np.random.default_rng(seed)
    rows, cols = np.mgrid[:side, :side]
    planes = np.zeros((side, side, num_classes), dtype=np.uint8)
    for k in range(num_classes):
        for _ in range(3):
            row, col, radius = *random.uniform(0, side, 2), random.uniform(side / 8, side / 4)
            planes[..., k] |= (rows - row) ** 2 + (cols - col) ** 2 < radius**2
    image = np.full((side, side, 3), 60.0)
    for k in range(num_classes):
        image[..., 2 * k % 3] += 120 * planes[..., k]
    noisy = image + random.normal(0, 8, image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8), planes


def write_tiff(folder: Path, name: str, planes: np.ndarray) -> None:
    """Write a mask as a TIFF of bands."""
    folder.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(
        folder / f"{name}.tif", planes.transpose(2, 0, 1), photometric="minisblack", planarconfig="separate"
    )


def write_pages(folder: Path, name: str, planes: np.ndarray) -> None:
    """Write a mask as a TIFF of pages."""
    folder.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(
        folder / f"{name}.tif", planes.transpose(2, 0, 1), photometric="minisblack", metadata={"axes": "QYX"}
    )


def write_npy(folder: Path, name: str, planes: np.ndarray) -> None:
    """Write a mask as an array (H, W, K)."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{name}.npy", planes)


def write_folders(folder: Path, name: str, planes: np.ndarray) -> None:
    """Write a mask for each class, in a folder of its own."""
    for plane, class_name in zip(planes.transpose(2, 0, 1), NAMES, strict=True):
        (folder / class_name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(plane).save(folder / class_name / f"{name}.png")


def write_suffixes(folder: Path, name: str, planes: np.ndarray) -> None:
    """Write a mask for each class, with a suffix of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for plane, class_name in zip(planes.transpose(2, 0, 1), NAMES, strict=True):
        Image.fromarray(plane).save(folder / f"{name}_{class_name}.png")


def write_circles(
    root: Path, *, count: int = 8, write: Callable[[Path, str, np.ndarray], None] = write_tiff, side: int = SIDE
) -> Path:
    """Write images/ and masks/ with splits train and val; gives the root."""
    for number in range(count):
        split = "val" if number % 4 == 3 else "train"
        image, planes = draw_scene(number, side)
        (root / "images" / split).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / "images" / split / f"s{number}.png")
        write(root / "masks" / split, f"s{number}", planes)
    return root
