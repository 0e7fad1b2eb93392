"""A small SegFormer as transformers makes it, with random weights."""

from __future__ import annotations

from typing import Any

import pytest


def small_segformer() -> Any:
    """A network of four classes; without transformers the test is skipped."""
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(
        num_labels=4,
        hidden_sizes=[8, 16, 24, 32],
        depths=[1] * 4,
        decoder_hidden_size=16,
        num_attention_heads=[1, 2, 3, 4],
    )
    return transformers.SegformerForSemanticSegmentation(config)
