"""What surfaces look like from close by.

Owns the brightness textures (a mip-mapped atlas), the tree crowns and the sensor noise; knows no scene. Everything here is made
once a process from fixed keys: scenes differ in where they look, not in the textures.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

TILE = 1024  # texels a side
TEXEL_M = 0.005  # so that a tile is 5.12 m and the pavement at one's feet still has detail at 1080 rows
NUM_LEVELS = 8
NEUTRAL = 128  # a brightness gain of one
LEVEL_SIZE = np.array([TILE >> level for level in range(NUM_LEVELS)], dtype=np.intp)
LEVEL_START = np.concatenate([[0], np.cumsum(LEVEL_SIZE**2)]).astype(np.intp)
TEXTURE_LENGTH = int(LEVEL_START[-1])

Gray = NDArray[np.float32]


class Texture(IntEnum):
    """The tiles of the atlas, in its order."""

    FLAT = 0
    ASPHALT = 1
    PAVING = 2
    COBBLES = 3
    BRICK = 4
    PLASTER = 5
    CONCRETE = 6
    STONE = 7
    GRASS = 8
    FOLIAGE = 9
    PLANKS = 10
    GRAVEL = 11
    METAL = 12
    SLABS = 13


def _noise(rng: np.random.Generator, rows: int, columns: int | None = None) -> Gray:
    """Smooth periodic noise in -1..1 with a given number of cells a side: (TILE, TILE)."""
    columns = columns or rows
    cells = rng.integers(0, 256, (rows, columns), dtype=np.uint8)
    if rows == TILE:
        return cells.astype(np.float32) / 127.5 - 1
    padded = np.pad(cells, 2, mode="wrap")
    image = Image.fromarray(padded).resize((TILE, TILE), Image.Resampling.BICUBIC, box=(2, 2, columns + 2, rows + 2))
    return np.asarray(image, dtype=np.float32) / 127.5 - 1


def _blocks(rng: np.random.Generator, height: int, width: int, *, joint: int, shift: float) -> tuple[Gray, Gray]:
    """Blocks laid in courses: a brightness per block in -1..1 and a mask of the joints, both (TILE, TILE)."""
    rows, columns = np.arange(TILE), np.arange(TILE)
    course = rows // height
    moved = columns[None, :] + (course * int(shift * width))[:, None]
    block = (moved // width) % (TILE // width)
    tone = rng.integers(0, 256, (TILE // height, TILE // width)).astype(np.float32) / 127.5 - 1
    joints = (rows % height < joint)[:, None] | (moved % width < joint)
    return tone[course[:, None], block], joints.astype(np.float32)


def _draw(texture: Texture, rng: np.random.Generator) -> Gray:
    """The brightness of one texture around zero (128 = one stop of gain): (TILE, TILE)."""
    if texture is Texture.FLAT:
        return np.zeros((TILE, TILE), dtype=np.float32)
    blotches = 0.6 * _noise(rng, 8) + 0.4 * _noise(rng, 24)
    fine = 0.5 * _noise(rng, TILE) + 0.7 * _noise(rng, 512) + 0.6 * _noise(rng, 192)
    if texture is Texture.ASPHALT:
        return 13 * fine + 7 * blotches + 26 * np.clip(_noise(rng, 384) - 0.55, 0, 1)
    if texture in (Texture.PAVING, Texture.SLABS):
        height, width = (64, 64) if texture is Texture.PAVING else (128, 64)
        tone, joints = _blocks(rng, height, width, joint=3, shift=0.5 if texture is Texture.PAVING else 0)
        return 11 * tone + 6 * fine + 6 * blotches - 44 * joints
    if texture is Texture.COBBLES:
        tone, _ = _blocks(rng, 32, 32, joint=3, shift=0.5)
        rows, columns = np.arange(TILE), np.arange(TILE)
        moved = columns[None, :] + ((rows // 32) * 16)[:, None]
        dome = np.sin(np.pi * (rows % 32) / 32)[:, None] * np.sin(np.pi * (moved % 32) / 32)
        return (16 * tone + 8 * fine + 60 * np.sqrt(np.clip(dome, 0, 1)) - 42).astype(np.float32)
    if texture is Texture.BRICK:
        tone, joints = _blocks(rng, 16, 64, joint=2, shift=0.5)
        return 20 * tone * (1 - joints) + 6 * fine + 5 * blotches + 24 * joints
    if texture is Texture.PLASTER:
        return 4 * fine + 7 * blotches + 5 * _noise(rng, 4, 32)
    if texture is Texture.CONCRETE:
        _, joints = _blocks(rng, 256, 512, joint=4, shift=0)
        return 6 * fine + 9 * blotches + 7 * _noise(rng, 4, 64) - 26 * joints
    if texture is Texture.STONE:
        tone, joints = _blocks(rng, 64, 128, joint=4, shift=0.5)
        return 15 * tone + 9 * fine + 6 * _noise(rng, 64) - 34 * joints
    if texture is Texture.GRASS:
        return 18 * _noise(rng, 128, 512) + 15 * _noise(rng, 64) + 10 * fine + 12 * blotches
    if texture is Texture.FOLIAGE:
        return 30 * _noise(rng, 96) + 24 * _noise(rng, 200) + 14 * _noise(rng, 32) + 10 * fine
    if texture is Texture.PLANKS:
        tone, _ = _blocks(rng, TILE, 32, joint=0, shift=0)
        return 13 * tone + 8 * _noise(rng, 16, 256) - 46.0 * (np.arange(TILE) % 32 < 3)
    if texture is Texture.GRAVEL:
        return 26 * _noise(rng, 256) + 22 * _noise(rng, 100) + 10 * blotches
    assert texture is Texture.METAL, texture
    return 6 * _noise(rng, 8, 256) + 5 * blotches


@lru_cache(maxsize=1)
def atlas() -> NDArray[np.uint8]:
    """All textures with all their mip levels, flat: texture t, level l starts at t * TEXTURE_LENGTH + LEVEL_START[l]."""
    parts = []
    for texture in Texture:
        rng = np.random.Generator(np.random.Philox(key=[0x7E57, int(texture)]))
        level = _draw(texture, rng)
        for _ in range(NUM_LEVELS):
            parts.append(np.clip(NEUTRAL + level, 30, 226).astype(np.uint8).reshape(-1))
            level = level[::2] + level[1::2]
            level = (level[:, ::2] + level[:, 1::2]) * np.float32(0.25)
    return np.concatenate(parts)


NUM_NOISES = 4
CROWN = 224  # pixels a side of a tree crown's template


@lru_cache(maxsize=1)
def crowns() -> list[list[Image.Image]]:
    """Templates of tree crowns: 0 outside, else how much light a tuft gets, 1..255; mode L.

    Each in CROWN, CROWN / 2, CROWN / 4 and CROWN / 8 pixels a side: most trees are far, and shrinking costs time.
    """
    rng = np.random.Generator(np.random.Philox(key=[0x7E57, 1000]))
    y, x = np.mgrid[0:CROWN, 0:CROWN].astype(np.float32) / CROWN - 0.5
    made = []
    for kind in range(12):
        light = np.zeros((CROWN, CROWN), dtype=np.float32)
        slim = 0.62 if kind % 3 == 2 else 1.0
        for _ in range(46):
            angle, reach = rng.uniform(0, 2 * np.pi), 0.36 * np.sqrt(rng.uniform())
            centre_x, centre_y = slim * reach * np.cos(angle), reach * np.sin(angle) * (0.92 if slim == 1 else 1.1)
            radius = rng.uniform(0.07, 0.14)
            ball = 1 - ((x - centre_x) ** 2 + (y - centre_y) ** 2) / radius**2
            lit = 0.50 - 0.62 * centre_y - 0.8 * (y - centre_y) / radius * 0.28 + rng.uniform(-0.13, 0.13)
            light = np.where((ball > 0) & (rng.uniform() + ball > 0.25), np.clip(lit, 0.05, 1), light)
        image = Image.fromarray((255 * light).astype(np.uint8))
        image = image.filter(ImageFilter.BoxBlur(2))  # a soft rim, for the noise to fray
        made.append([image, image.reduce(2), image.reduce(4), image.reduce(8)])
    return made


@lru_cache(maxsize=1)
def leaf_noise() -> NDArray[np.int16]:
    """Noise that frays a crown's edge and tufts, around zero: (TILE, TILE)."""
    rng = np.random.Generator(np.random.Philox(key=[0x7E57, 1001]))
    return (30 * _noise(rng, 256) + 34 * _noise(rng, 120) + 26 * _noise(rng, 50)).astype(np.int16)


@lru_cache(maxsize=1)
def cloud_noise() -> Gray:
    """Several octaves of noise in about -1..1 for clouds: (TILE, TILE)."""
    rng = np.random.Generator(np.random.Philox(key=[0x7E57, 1002]))
    return sum((_noise(rng, 6 << k) * 0.55**k for k in range(6)), np.zeros((TILE, TILE), np.float32)) / 1.7


@lru_cache(maxsize=NUM_NOISES)
def sensor_noise(amount: int) -> NDArray[np.uint8]:
    """Noise of a sensor, luminance and a little colour, around 128, 1.5 to 6 units of deviation: (TILE, TILE, 4)."""
    rng = np.random.Generator(np.random.Philox(key=[0x7E57, 1003]))
    gray = rng.integers(-12, 13, (TILE, TILE, 1)) * 0.6
    colour = rng.integers(-12, 13, (TILE, TILE, 4)) * 0.5
    return (128.5 + (gray + colour) * (1 + amount) / NUM_NOISES).astype(np.uint8)


def make_textures() -> None:
    """Make everything here now instead of when it is first looked at, the noise of single sensors apart."""
    for made in (atlas, crowns, leaf_noise, cloud_noise):
        made()
