"""The keys that a command chooses which names its data alone."""

from __future__ import annotations

CHOSEN_KEYS = frozenset(
    {
        "model",
        "stem_stride",
        "base_channels",
        "depth",
        "padding",
        "norm",
        "input_size",
        "tile_size",
        "context_px",
        "batch_size",
    }
    | {"micro_batch_size", "total_steps", "eval_steps", "learning_rate", "encoder_learning_rate_factor"}
    | {
        "optimizer",
        "schedule",
        "warmup_fraction",
        "max_grad_norm",
        "ema_decay",
        "loss",
        "class_weights",
        "class_balance",
        "augmentation",
    }
)
"""The keys that are chosen for the data and the device where a command names its data alone; mixed_precision stays auto."""
