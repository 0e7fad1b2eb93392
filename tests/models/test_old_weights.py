"""Weights of before safetensors are a pickle: they are read where torch reads it safely, and as dense tensors only."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from unet_dist.errors import CheckpointError
from unet_dist.models.pretrained import PICKLE_FILE
from unet_dist.models.published import read_weights

reads_pickles = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 10),
    reason="torch 2.10 is the first that reads pickles safely",
)


@reads_pickles
def test_dense_tensors_are_read(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / PICKLE_FILE)
    assert torch.equal(read_weights(tmp_path)["a"], torch.ones(2))


def test_a_torch_that_reads_pickles_unsafely_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / PICKLE_FILE)
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    with pytest.raises(
        CheckpointError, match=r"torch 2\.9\.1\+cpu does not read safely .*Install torch 2\.10 or newer"
    ):
        read_weights(tmp_path)


@reads_pickles
def test_sparse_tensors_are_refused(tmp_path: Path) -> None:
    """torch does not compare their numbers with their sides."""
    torch.save({"a": torch.ones(2, 2).to_sparse()}, tmp_path / PICKLE_FILE)
    with pytest.raises(CheckpointError, match="is not a table of dense tensors"):
        read_weights(tmp_path)
