"""Proves that nothing in a training step reads a value back from the device: on a CPU by forbidding what would, on a GPU by
torch's own alarm, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.benchmark.conftest import TINY
from unet_dist.benchmark.setting import open_setting
from unet_dist.config.sections import Config
from unet_dist.processes.group import open_processes
from unet_dist.terminal import Teller

# What gives a value to the host, or a tensor whose shape depends on values. On a GPU each of them waits.
READS = {
    *("_local_scalar_dense", "nonzero", "nonzero_numpy", "masked_select", "equal", "is_nonzero"),
    *("_unique", "_unique2", "unique_dim", "unique_consecutive", "bincount", "repeat_interleave"),
}


class WaitedError(AssertionError):
    """The step read a value."""


class NoReads(TorchDispatchMode):
    """Refuses operations that read values, and copies to the host."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in READS:
            raise WaitedError(name)
        if name == "index" and any(t is not None and t.dtype in (torch.bool, torch.uint8) for t in args[1]):
            raise WaitedError("index by a mask")
        results = func(*args, **(kwargs or {}))
        if isinstance(results, Tensor) and results.device.type == "cpu":
            came = [arg.device.type for arg in args if isinstance(arg, Tensor)]
            if any(device != "cpu" for device in came):
                raise WaitedError(f"{name} to the host")
        return results


@contextmanager
def no_waiting() -> Iterator[None]:
    def refused(*_: Any) -> Any:
        raise WaitedError("tolist or numpy")  # on a CPU they are no operations

    mode = torch.cuda.get_sync_debug_mode() if torch.cuda.is_available() else None
    with pytest.MonkeyPatch.context() as patch, NoReads():
        patch.setattr(Tensor, "tolist", refused)
        patch.setattr(Tensor, "numpy", refused)
        if mode is not None:
            torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            if mode is not None:
                torch.cuda.set_sync_debug_mode(mode)


@pytest.mark.parametrize(
    "reads",
    [
        lambda t: t.sum().item(),
        lambda t: bool(t[0] > 0),
        lambda t: float(t[0]),
        lambda t: t[t > 0],
        lambda t: t.nonzero(),
        lambda t: t.tolist(),
        lambda t: t.numpy(),
    ],
)
def test_reading_is_noticed(reads: Callable[[Tensor], object]) -> None:
    values = torch.ones(3)
    with pytest.raises(WaitedError), no_waiting():
        reads(values)
    assert values.tolist() == [1, 1, 1], "afterwards all is as before"


CASES: dict[str, dict[str, Any]] = {
    "one micro-batch": {},
    "clipped, averaged, accumulated, with dropout": {
        "max_grad_norm": 1.0, "ema_decay": 0.9, "micro_batch_size": 1, "dropout": 0.2,
    },
    "tiles": {"input_size": 92, "tile_size": 60, "batch_size": 2},
    "weighted classes, smoothed": {"class_weights": "median", "label_smoothing": 0.1, "norm": "weight"},
    "two passes": {"loss": "cross_entropy+dice", "micro_batch_size": 2},
    "focal and lovasz": {"loss": "focal+0.5*lovasz"},
    "borders": {"border_class": 1},
    "segformer": {"model": "segformer:b0", "base_channels": 64, "depth": 4, "input_size": 64, "batch_size": 2},
}  # fmt: skip


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", CASES)
def test_a_step_reads_nothing(
    name: str, device: str, cache_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no GPU here")
        monkeypatch.delenv("ACCELERATE_USE_CPU")
    if name == "segformer":
        pytest.importorskip("transformers", reason="the extra segformer is not installed")
    config = Config.from_flat({**TINY, "cache_path": str(cache_path), **CASES[name]})
    with open_processes(mixed_precision="no") as processes:
        setting = open_setting(config, processes, tmp_path / "setting", Teller(speaks=False), name="tiny")
        bare, steps = setting.subject.bare, 2
        bare.seconds(1)  # the optimizer makes its state in the first step
        before = [p.detach().clone() for p in setting.parts.model.parameters()]
        with no_waiting():
            for _ in range(steps):
                bare._trainer.step(bare.share, bare.divisor)
        assert bare._trainer.progress.step == 1 + steps
        assert any(not torch.equal(a, b) for a, b in zip(before, setting.parts.model.parameters(), strict=True))
