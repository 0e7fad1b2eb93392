"""Keys that have no effect, or exclude each other, whatever the data and the device.

Owns these refusals. A key's own range stands at its field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unet_dist.errors import ConfigError


def check_effects(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse settings that would have no effect, or not go together.

    Args:
        values: flat keys of a config.
        defaults: what they are where nobody says anything.

    Raises:
        ConfigError: names the keys.
    """
    if values["data_path"] != "synthetic":
        for key in ("synthetic_images", "synthetic_size"):
            if values[key] != defaults[key]:
                raise ConfigError(
                    f"{key}: got {values[key]!r}, which has no effect as data_path is {values['data_path']!r}. "
                    f"Remove {key}, or set --data_path synthetic."
                )
    if (values["folds"] is None) != (values["fold"] is None) or (values["folds"] or 1) <= (values["fold"] or 0):
        raise ConfigError(
            f"fold, folds: got {values['fold']} and {values['folds']}, expected both, fold being 0 to folds - 1. "
            "Set --folds 5 --fold 0."
        )
    if values["dtype"] == "float64" and values["mixed_precision"] not in ("auto", "no"):
        raise ConfigError(
            f"dtype: got float64 together with mixed_precision {values['mixed_precision']}, expected no mixed precision. "
            "Set --mixed_precision no."
        )
    if values["tf32"] and values["mixed_precision"] in ("bf16", "fp16"):
        raise ConfigError(
            f"tf32: got true, which has no effect as mixed_precision is {values['mixed_precision']}. Remove tf32, or set "
            "--mixed_precision no."
        )
    for key, done in (("compile", "compiled"), ("cudnn_benchmark", "timed")):
        if values[key] and values["input_size"] == "full":
            said = (
                f"{key}: got true together with input_size full, expected crops of one size: each shape is {done} anew"
            )
            raise ConfigError(f"{said}. Remove --{key}, or set --input_size.")
    if values["cudnn_benchmark"] and values["deterministic"]:
        raise ConfigError("cudnn_benchmark: got true together with deterministic, expected one. Remove the other.")
    if values["norm"] == "batch" and values["padding"] == "valid" and values["batch_size"] == 1:
        raise ConfigError(
            "norm: got batch at batch_size 1, expected at least 2 crops to normalise over. Set --norm weight."
        )
