"""Proves that one process can hold settings of several precisions at once, each computing in its own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unet_dist.errors import ConfigError
from unet_dist.processes.group import Processes


def test_each_keeps_its_precision(processes: Processes) -> None:
    seen: list[torch.dtype] = []

    class Probe(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result = super().forward(x)
            seen.append(result.dtype)
            return result

    images = torch.ones(1, 2)
    plain = processes.prepare(Probe(2, 2))
    half = processes.in_precision("bf16")
    narrow = half.prepare(Probe(2, 2))
    assert (processes.precision, half.precision) == ("no", "bf16")
    for model in (plain, narrow, plain):
        model(images)
    assert seen == [torch.float32, torch.bfloat16, torch.float32]
    for one, dtype in ((processes, torch.float32), (half, torch.bfloat16)):
        with one.autocast():
            assert (images @ images.T).dtype == dtype
    with pytest.raises(ConfigError, match="fp16 on a CPU"):
        processes.in_precision("fp16")
