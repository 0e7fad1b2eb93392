"""Runs for the null GPU: tiny ones, each with keys of its own."""

from __future__ import annotations

from typing import Any

STEPS = 4
TINY: dict[str, Any] = {
    "synthetic_images": 20, "synthetic_size": "64x96", "base_channels": 4, "depth": 2, "input_size": 60, "batch_size": 4,
    "total_steps": STEPS, "eval_steps": STEPS, "log_steps": STEPS, "trackers": "[]", "num_workers": 0,
}  # fmt: skip
"""The validation comes after the last step, so that the steps are alone."""

_DEEP = {"depth": 4, "input_size": 252, "synthetic_size": "260x260"}
_TILES = {"input_size": 100, "synthetic_size": "128x128", "tile_size": 60}
_SUPERVISED = {"deep_supervision": 2, "depth": 3, "input_size": 108}

ALONE: dict[str, dict[str, Any]] = {
    "plain": {},
    "bf16": {"mixed_precision": "bf16"},
    "fp16": {"mixed_precision": "fp16"},
    "float64": {"dtype": "float64"},
    "norm weight": {"norm": "weight"},
    "norm batch": {"norm": "batch"},
    "norm group": {"norm": "group"},
    "depth 4, norm weight": {**_DEEP, "norm": "weight"},
    "depth 4": _DEEP,
    "dice": {"loss": "cross_entropy+dice"},
    "focal": {"loss": "focal"},
    "tiles": _TILES,
    "full": {"input_size": "full", "tile_size": 60},
    "dropout": {"dropout": 0.3},
    "accumulation": {"micro_batch_size": 1},
    "checkpointing": {"checkpoint_activations": True},
    "ema": {"ema_decay": 0.9},
    "muon": {"optimizer": "muon", "base_channels": 16},
    "clipping": {"max_grad_norm": 1.0},
    "contiguous": {"memory_format": "contiguous"},
    "deterministic": {"deterministic": True},
    "workers": {"num_workers": 1},
    "tf32": {"mixed_precision": "no", "tf32": True},
    "norm weight, float32": {"norm": "weight", "mixed_precision": "no"},
    "norm weight, fp16": {"norm": "weight", "mixed_precision": "fp16"},
    "norm weight, tiles": {**_TILES, "norm": "weight"},
    "norm weight, checkpointing": {"norm": "weight", "checkpoint_activations": True},
    "norm weight, deterministic": {"norm": "weight", "deterministic": True},
    "norm batch, accumulation": {"norm": "batch", "micro_batch_size": 2},
    "dice, accumulation": {"loss": "cross_entropy+dice", "micro_batch_size": 2},
    "smoothing": {"label_smoothing": 0.1},
    "class weights": {"class_weights": "median"},
    "borders": {"border_class": 1},
    "class balance": {"class_balance": 0.5},
    "mixed crops": {"cutmix": 0.5, "classmix": 0.4, "augmentation": "strong"},
    "bilinear": {"upsampling": "bilinear", "norm": "weight"},
    "same": {"padding": "same", "input_size": 64},
    "stem": {"stem_stride": 2, "input_size": 120, "synthetic_size": "128x128"},
    "lovasz": {"loss": "lovasz"},
    "compile": {"compile": True},
    "cudnn_benchmark": {"cudnn_benchmark": True},
    "trivial augmentation": {"augmentation": "trivial"},
    "residual": {"blocks": "residual", "norm": "weight"},
    "dilations": {"bottleneck_dilations": "[1,2]", "norm": "weight", "input_size": 92},
    "supervised": _SUPERVISED,
    "supervised, tiles": {**_TILES, "deep_supervision": 1},
    "supervised, checkpointing": {**_SUPERVISED, "checkpoint_activations": True, "norm": "weight"},
    "supervised, compile": {**_SUPERVISED, "compile": True},
}
"""One process each; the debug mode, which reads from the device, apart."""

TOGETHER: dict[str, dict[str, Any]] = {
    "plain": {},
    "fp16": {"mixed_precision": "fp16"},
    "float64": {"dtype": "float64"},
    "norm weight": {"norm": "weight"},
    "dice": {"loss": "cross_entropy+dice"},
    "tiles": _TILES,
    "split sample": {**_TILES, "split_sample": True, "batch_size": 1},
    "full": {"input_size": "full", "tile_size": 60},
    "dropout": {"dropout": 0.3},
    "accumulation": {"micro_batch_size": 1, "norm": "weight"},
    "checkpointing": {"checkpoint_activations": True},
    "ema": {"ema_decay": 0.9},
    "deterministic": {"deterministic": True},
    "norm batch": {"norm": "batch"},
    "norm batch, accumulation": {"norm": "batch", "micro_batch_size": 1},
    "norm batch, compile": {"norm": "batch", "compile": True},
    "norm group": {"norm": "group"},
    "bf16, workers": {"mixed_precision": "bf16", "num_workers": 1},
    "supervised": {**_SUPERVISED, "norm": "weight"},
}
"""Two processes."""

GRAPHED: dict[str, dict[str, Any]] = {
    "plain": {},
    "norm weight": {"norm": "weight"},
    "checkpointing": {"checkpoint_activations": True},
    "dropout": {"dropout": 0.3},
}
"""Options of networks whose passes are captured in CUDA graphs."""
