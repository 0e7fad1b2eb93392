"""From the visibility buffer to a label map and a photograph.

Owns textures, sky, soft shadows, haze on the ground, blur and sensor noise. It changes colours only: every outline is the
visibility buffer's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from unet_dist.scenes.canvas import Canvas, Plane, Surface, front_level
from unet_dist.scenes.light import Light
from unet_dist.scenes.textures import (
    LEVEL_SIZE,
    LEVEL_START,
    NEUTRAL,
    NUM_LEVELS,
    TEXEL_M,
    TEXTURE_LENGTH,
    TILE,
    atlas,
    cloud_noise,
    sensor_noise,
)

_BAND_ROWS = 48  # a band's arrays stay in the processor's cache: 2x faster than whole pictures (measured, 1080x1920)
_FAR = 1 << 16  # a multiple of every level's size: keeps texture coordinates positive


def develop(canvas: Canvas, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Make the picture (height, width, 3) and the label map (height, width), both uint8."""
    camera, light = canvas.camera, canvas.light
    height, width = camera.height, camera.width
    visible = np.asarray(canvas.visible)
    label_of, colour_of, plane_of = _tables(canvas.surfaces)
    laying = _Laying(canvas, float(rng.uniform(0, 5)), float(rng.uniform(0, 5)))
    sky = _sky(light, height, width, camera.cy, rng)
    soft = canvas.shade.filter(ImageFilter.BoxBlur(max(1, round(height / 400))))
    shade = np.asarray(soft.resize((width, height), Image.Resampling.BILINEAR))
    label = np.empty((height, width), dtype=np.uint8)
    # Four channels: a colour is one 32-bit look-up. A pixel of margin all around: the blur's neighbours.
    sharp = np.empty((height + 2, width + 2, 4), dtype=np.uint8)
    for top in range(0, height, _BAND_ROWS):
        rows = slice(top, min(top + _BAND_ROWS, height))
        surface = visible[rows].astype(np.intp)
        np.take(label_of, surface, out=label[rows], mode="clip")
        plane = np.take(plane_of, surface, mode="clip")
        colour = np.take(colour_of, surface, mode="clip").view(np.uint8).reshape(*surface.shape, 4)
        gain = np.full(surface.shape, NEUTRAL, dtype=np.uint8)
        laying.front(surface, plane, gain)
        laying.side(top, surface, plane, gain)
        laying.ground(top, surface, plane, gain, colour, shade[rows])
        lit = colour.astype(np.uint16)
        lit *= gain[:, :, None]
        lit >>= 7
        np.minimum(lit, 255, out=lit)
        is_sky = plane == Plane.SKY
        pixels = lit.astype(np.uint8)
        if is_sky.any():
            np.copyto(pixels.view(np.uint32)[:, :, 0], sky[rows], where=is_sky)
        sharp[1 + rows.start : 1 + rows.stop, 1:-1] = pixels
    sharp[0], sharp[-1] = sharp[1], sharp[-2]
    sharp[:, 0], sharp[:, -1] = sharp[:, 1], sharp[:, -2]
    return _expose(sharp, light.noise, rng), label


def _expose(sharp: NDArray[np.uint8], noise: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Blur by a pixel, which also softens the outlines' steps, and add noise: (height, width, 3)."""
    height, width = sharp.shape[0] - 2, sharp.shape[1] - 2
    is_small = height < 500  # as if shrunk from a large picture: sharper, and with less noise
    centre, shift = (6, 6) if is_small else (2, 4)  # weights 1, centre, 1: they sum to 2 ** (shift / 2)
    noise = noise // 2 if is_small else noise
    grain = _grain(noise, rng, height, width)
    flat = sharp.reshape(height + 2, -1)
    picture = np.empty((height, width, 3), dtype=np.uint8)
    for top in range(0, height, _BAND_ROWS):
        stop = min(top + _BAND_ROWS, height)
        part = flat[top : stop + 2].astype(np.uint16)
        down = part[1:-1] * np.uint16(centre)
        down += part[:-2]
        down += part[2:]
        both = down[:, 4:-4] * np.uint16(centre)  # a pixel is four numbers
        both += down[:, :-8]
        both += down[:, 8:]
        both >>= shift
        both += grain[np.arange(top, stop) % TILE]
        np.clip(both, 128, 383, out=both)
        both -= 128
        picture[top:stop] = both.reshape(stop - top, width, 4)[:, :, :3]
    return picture


def _tables(surfaces: list[Surface]) -> tuple[NDArray[np.uint8], NDArray[np.uint32], NDArray[np.uint8]]:
    colours = np.zeros((len(surfaces), 4), dtype=np.uint8)
    colours[:, :3] = [s[1] for s in surfaces]
    labels, planes = [s[0] for s in surfaces], [s[2] for s in surfaces]
    return np.array(labels, np.uint8), colours.view(np.uint32)[:, 0], np.array(planes, np.uint8)


class _Laying:
    """Looks the brightness of every pixel up in the atlas, plane by plane."""

    def __init__(self, canvas: Canvas, shift_x: float, shift_z: float) -> None:
        self.camera, self.light = canvas.camera, canvas.light
        camera = self.camera
        self.shift_x, self.shift_z = shift_x, shift_z
        self.texture_start = np.array([s[3] * TEXTURE_LENGTH for s in canvas.surfaces], np.intp)
        self.at_m = np.array([s[4] for s in canvas.surfaces], np.float32)
        level = np.array([front_level(camera, max(s[4], 0.1)) for s in canvas.surfaces])
        self.front_start = self.texture_start + LEVEL_START[level]
        self.front_size = LEVEL_SIZE[level]
        columns = np.arange(camera.width, dtype=np.float32) + 0.5 - camera.cx
        self.x_per_z = columns * np.float32(camera.mirror / camera.fx)
        self.z_per_x = np.float32(camera.fx) / np.maximum(np.abs(columns), 0.5)
        footprint = self.z_per_x * np.sqrt(self.z_per_x / (camera.fx * camera.fy)) / TEXEL_M
        self.side_level = np.log2(footprint).astype(np.float32)
        self.columns = np.arange(camera.width, dtype=np.int32)

    def front(self, surface: NDArray[np.intp], plane: NDArray[np.uint8], gain: NDArray[np.uint8]) -> None:
        """Textures that face the camera: a texel a pixel, at the level that fits the depth."""
        row, column = np.nonzero(plane == Plane.FRONT)
        if len(row) == 0:
            return
        seen = surface[row, column]
        size = self.front_size[seen]
        index = self.front_start[seen] + (row & (size - 1)) * size + (column & (size - 1))
        gain[row, column] = np.take(atlas(), index, mode="clip")

    def side(self, top: int, surface: NDArray[np.intp], plane: NDArray[np.uint8], gain: NDArray[np.uint8]) -> None:
        """Textures of walls along the street: a column sees one depth."""
        row, column = np.nonzero(plane == Plane.SIDE)
        if len(row) == 0:
            return
        camera = self.camera
        seen = surface[row, column]
        x = self.at_m[seen]
        z = self.z_per_x[column] * x
        level = np.clip(self.side_level[column] + np.log2(np.maximum(x, 0.1)) + 0.5, 0, NUM_LEVELS - 1)
        level = level.astype(np.intp)
        texels_per_m = np.ldexp(np.float32(1 / TEXEL_M), -level)
        size = LEVEL_SIZE[level]
        up = ((row + (top + 0.5 - camera.cy)).astype(np.float32) * z * np.float32(1 / camera.fy)) - camera.eye
        u = (z * texels_per_m).astype(np.intp) & (size - 1)
        v = ((up * texels_per_m).astype(np.intp) + _FAR) & (size - 1)
        index = self.texture_start[seen] + LEVEL_START[level] + v * size + u
        gain[row, column] = np.take(atlas(), index, mode="clip")

    def ground(
        self,
        top: int,
        surface: NDArray[np.intp],
        plane: NDArray[np.uint8],
        gain: NDArray[np.uint8],
        colour: NDArray[np.uint8],
        shade: NDArray[np.uint8],
    ) -> None:
        """Texture, shadow and haze of the ground: a row sees one depth."""
        camera = self.camera
        first = max(0, int(camera.cy) + 1 - top)
        on_ground = plane[first:] == Plane.GROUND
        if not on_ground.any():
            return
        below = np.arange(top + first, top + len(surface), dtype=np.float32) + 0.5 - np.float32(camera.cy)
        z = np.float32(camera.fy * camera.eye) / np.maximum(below, 0.25)
        footprint = z * np.sqrt(z / (camera.fx * camera.fy * camera.eye)) * np.sqrt(camera.fy / camera.fx) / TEXEL_M
        level = np.clip(np.log2(footprint) + 0.5, 0, NUM_LEVELS - 1).astype(np.intp)
        texels_per_m = np.ldexp(np.float32(1 / TEXEL_M), -level)
        size = LEVEL_SIZE[level]
        start = (self.shift_x * texels_per_m + _FAR).astype(np.float32)
        u = (self.x_per_z[None, :] * (z * texels_per_m)[:, None] + start[:, None]).astype(np.intp)
        u &= (size - 1)[:, None]
        v = ((z + self.shift_z) * texels_per_m).astype(np.intp) & (size - 1)
        u += (v * size + LEVEL_START[level])[:, None]
        u += np.take(self.texture_start, surface[first:], mode="clip")
        textured = (np.take(atlas(), u, mode="clip").astype(np.uint16) * shade[first:]) >> 8
        np.copyto(gain[first:], textured.astype(np.uint8), where=on_ground)
        weight = 256 * (1 - np.exp(-z * self.light.haze_per_m))
        hazy = (weight >= 4).nonzero()[0]
        if len(hazy):
            last = hazy[-1] + 1  # the far rows come first
            share = weight[:last, None, None].astype(np.int32)
            haze = np.array([*self.light.haze, 0], dtype=np.int32)
            part = colour[first : first + last].astype(np.int32)
            mixed = (part * (256 - share) + haze * share) >> 8
            np.copyto(colour[first : first + last], mixed.astype(np.uint8), where=on_ground[:last, :, None])


def _sky(light: Light, height: int, width: int, horizon_row: float, rng: np.random.Generator) -> NDArray[np.uint32]:
    """A gradient with clouds that grow towards the zenith, as 32-bit colours: (height, width)."""
    rows, columns = 160, 240  # clouds are soft: drawn small and enlarged
    up = np.clip(1 - (np.arange(rows, dtype=np.float32) + 0.5) / rows * height / max(horizon_row, 1), 0.02, 1)
    distance = 0.35 / (up + 0.12)
    u = ((np.arange(columns, dtype=np.float32) / columns - 0.5)[None, :] * distance[:, None] * 420).astype(np.int32)
    v = (distance * 520).astype(np.int32)
    start = rng.integers(0, TILE, 2)
    clouds = cloud_noise()[(v[:, None] + start[0]) % TILE, (u + start[1]) % TILE]
    density = np.clip((clouds - 0.42 + 1.1 * light.cloud_cover) * 2.0, 0, 1)[:, :, None]
    weight = (up**0.8)[:, None, None]
    blue = np.array(light.horizon, np.float32) * (1 - weight) + np.array(light.zenith, np.float32) * weight
    lit = np.array(light.cloud, np.float32) * (1 - 0.12 * np.clip(clouds, 0, 1)[:, :, None])
    density = density * (0.35 + 0.65 * np.minimum(1, weight * 2.5))
    small = Image.fromarray((blue * (1 - density) + lit * density).astype(np.uint8))
    seen = min(height, int(horizon_row) + 2)  # no sky below the horizon
    box = (0, 0, columns, rows * seen / height)
    colours = np.zeros((height, width), dtype=np.uint32)
    large = small.resize((width, seen), Image.Resampling.BILINEAR, box=box).convert("RGBA")
    colours[:seen] = np.asarray(large).view(np.uint32)[:, :, 0]
    return colours


def _grain(amount: int, rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Sensor noise around 128, shifted by chance: (height or TILE, whichever is less, 4 * width)."""
    row, column = rng.integers(0, TILE, 2)
    noise = np.roll(sensor_noise(amount), (int(row), int(column)), axis=(0, 1))[:height]
    return np.tile(noise, (1, -(-width // TILE), 1))[:, :width].reshape(len(noise), -1)
