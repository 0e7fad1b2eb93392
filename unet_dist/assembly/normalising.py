"""From a config and a data set to what a network sees of its pixels.

Owns how mean, deviation and limits follow from the key normalisation; all of it then travels with the network.
"""

from __future__ import annotations

from typing import NamedTuple

from unet_dist.config.quantities import parse_normalisation
from unet_dist.config.sections import Config
from unet_dist.data.decoded.cache import Cache
from unet_dist.errors import ConfigError
from unet_dist.imaging.pixels import Pixels

_SHARES = (0.5, 99.5)
"""Percentiles, %: nnU-Net's (Isensee et al. 2021), so that a few outliers decide nothing."""


class Normalisation(NamedTuple):
    """What a network does to pixels first: (pixel - mean) / std, clipped before to the limits of `pixels`."""

    mean: list[float]
    std: list[float]
    pixels: Pixels


def normalisation_of(config: Config, cache: Cache) -> Normalisation:
    """Work out what a network of a config sees of the pixels of a data set.

    Raises:
        ConfigError: limits for another number of channels.
    """
    data = config.data
    word, ranges = parse_normalisation(data.normalisation)
    pixels = Pixels(str(cache.dtype), nodata=data.nodata, bands=data.band_numbers())
    if word == "none":
        return Normalisation([0.0] * cache.channels, [1.0] * cache.channels, pixels)
    if word == "mean_std":
        return Normalisation(cache.mean, [_above_zero(std, cache) for std in cache.std], pixels)
    if word == "percentile":
        limits = tuple((low, high) for low, high in cache.percentiles(_SHARES))
    elif len(ranges) in (1, cache.channels):
        limits = ranges * (cache.channels // len(ranges))
    else:
        raise ConfigError(
            f"normalisation: got {len(ranges)} ranges, expected 1 or {cache.channels}, one for each channel of {cache.name}."
        )
    mean = [(low + high) / 2 for low, high in limits]
    std = [(high - low) / 2 or 1.0 for low, high in limits]
    return Normalisation(mean, std, Pixels(pixels.dtype, limits, pixels.nodata, pixels.bands))


def _above_zero(std: float, cache: Cache) -> float:
    """A flat channel stays finite: one step of whole numbers; of floats any deviation will do."""
    return (std or 1.0) if cache.dtype.kind == "f" else max(std, 1.0)
