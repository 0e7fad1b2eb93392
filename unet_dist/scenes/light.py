"""The weather of a scene: where its light comes from and what the air does to it.

Owns the colours of light, haze and sky; knows nothing about shapes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from unet_dist.scenes.textures import NUM_NOISES

Colour = tuple[float, float, float]  # red, green, blue, 0..255 before the light falls on it


@dataclass(frozen=True)
class Light:
    """Gains per direction a surface faces (keys: up, down, front, left, right), and the air between."""

    gains: dict[str, float]
    tint: Colour  # gain a channel
    haze: Colour
    haze_per_m: float
    zenith: Colour
    horizon: Colour
    cloud: Colour
    cloud_cover: float  # 0..1
    sun_side: int  # -1 left, 1 right, 0 no shadows
    shadow: float  # gain of the ground in shadow
    is_dusk: bool
    noise: int  # 0..NUM_NOISES - 1: how much of the sensor's noise shows

    def haze_weight(self, z: float) -> float:
        """Share of the air in what is seen at z metres."""
        return 1.0 - math.exp(-max(z, 0.0) * self.haze_per_m)

    def shade(self, colour: Colour, facing: str, z: float) -> tuple[int, int, int]:
        """The colour of a matt surface at depth z."""
        weight = self.haze_weight(z)
        gain = self.gains[facing] * (1 - weight)
        red = int(colour[0] * self.tint[0] * gain + self.haze[0] * weight)
        green = int(colour[1] * self.tint[1] * gain + self.haze[1] * weight)
        blue = int(colour[2] * self.tint[2] * gain + self.haze[2] * weight)
        return (red if red < 255 else 255, green if green < 255 else 255, blue if blue < 255 else 255)


def scaled(colour: Colour, gain: float) -> Colour:
    """A lighter or darker shade of a colour."""
    return (colour[0] * gain, colour[1] * gain, colour[2] * gain)


def sample_light(rng: np.random.Generator) -> Light:
    """Draw a time of day and a weather."""
    kind = rng.uniform()
    jitter = [float(v) for v in rng.uniform(0.96, 1.04, 3)]
    exposure = float(rng.uniform(0.94, 1.16))
    noise = int(rng.integers(NUM_NOISES))
    if kind < 0.52:  # sun
        side = -1 if rng.uniform() < 0.5 else 1
        tint, haze, density = (1.06, 1.0, 0.92), (196.0, 208.0, 222.0), rng.uniform(0.003, 0.008)
        zenith, horizon, cloud = (70.0, 126.0, 196.0), (186.0, 208.0, 230.0), (248.0, 248.0, 250.0)
        cover, shadow, low, high, front = rng.uniform(0.1, 0.6), 0.66, 0.74, 1.14, rng.uniform(0.8, 1.05)
    elif kind < 0.80:  # overcast
        side = 0
        tint, haze, density = (0.97, 1.0, 1.03), (192.0, 198.0, 204.0), rng.uniform(0.004, 0.011)
        zenith, horizon, cloud = (158.0, 168.0, 180.0), (210.0, 214.0, 218.0), (226.0, 228.0, 232.0)
        cover, shadow, low, high, front = rng.uniform(0.55, 0.95), 0.86, 0.86, 0.92, 0.9
    elif kind < 0.91:  # fog
        side = 0
        tint, haze, density = (0.98, 1.0, 1.0), (204.0, 207.0, 208.0), rng.uniform(0.016, 0.032)
        zenith, horizon, cloud = (196.0, 201.0, 206.0), (208.0, 211.0, 213.0), (214.0, 216.0, 218.0)
        cover, shadow, low, high, front = 0.5, 0.9, 0.86, 0.9, 0.88
    else:  # low sun
        side = -1 if rng.uniform() < 0.5 else 1
        tint, haze, density = (1.08, 0.9, 0.8), (232.0, 186.0, 154.0), rng.uniform(0.004, 0.009)
        zenith, horizon, cloud = (74.0, 88.0, 138.0), (250.0, 190.0, 132.0), (232.0, 160.0, 138.0)
        cover, shadow, low, high, front = rng.uniform(0.3, 0.7), 0.6, 0.56, 1.1, 0.7
    gains = {"up": 1.0, "down": 0.5, "front": float(front), "left": low, "right": low}
    if side == 0:
        gains["left"] = gains["right"] = high
    else:  # the sun on the left lights what faces left
        gains["left" if side < 0 else "right"] = high
    return Light(
        gains={key: value * exposure for key, value in gains.items()},
        tint=(tint[0] * jitter[0], tint[1] * jitter[1], tint[2] * jitter[2]),
        haze=haze,
        haze_per_m=float(density),
        zenith=zenith,
        horizon=horizon,
        cloud=cloud,
        cloud_cover=float(cover),
        sun_side=side,
        shadow=shadow,
        is_dusk=kind >= 0.91,
        noise=noise,
    )
