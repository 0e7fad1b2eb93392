"""Proves which switches of torch's a deterministic run and one in float32 set, and that a layer that is refused is named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from unet_dist.assembly.opening import open_for
from unet_dist.config.sections import Config
from unet_dist.errors import ConfigError
from unet_dist.machine.arithmetic import compute_deterministically, compute_in_float32, find_undeterministic

deterministic: Any = torch.utils.deterministic


@pytest.fixture
def switches() -> Iterator[None]:
    """Put torch's switches back."""
    filling = deterministic.fill_uninitialized_memory
    rounding = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    tries = torch.backends.cudnn.benchmark
    yield
    torch.backends.cudnn.benchmark = tries
    torch.use_deterministic_algorithms(False)
    deterministic.fill_uninitialized_memory = filling
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = rounding


@pytest.mark.usefixtures("switches")
@pytest.mark.parametrize("warns_only", [False, True])
def test_deterministic(warns_only: bool) -> None:
    environment: dict[str, str] = {}
    compute_deterministically(environment, warns_only=warns_only)
    assert environment == {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled() is warns_only
    assert not deterministic.fill_uninitialized_memory


@pytest.mark.usefixtures("switches")
@pytest.mark.parametrize("tf32", [False, True])
def test_float32_is_rounded_only_where_asked(tf32: bool) -> None:
    compute_in_float32(tf32=tf32)
    assert torch.backends.cuda.matmul.allow_tf32 is tf32
    assert torch.backends.cudnn.allow_tf32 is tf32


@pytest.mark.usefixtures("switches")
@pytest.mark.parametrize("tries", [False, True])
def test_cudnn_tries_its_algorithms_only_where_asked(tries: bool) -> None:
    torch.backends.cudnn.benchmark = not tries
    open_for(Config(cudnn_benchmark=tries))  # the processes are joined where it is entered
    assert torch.backends.cudnn.benchmark is tries


@pytest.mark.parametrize("others", [{"deterministic": True}, {"input_size": "full"}])
def test_cudnn_cannot_try_for_one_result_or_for_many_shapes(others: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="cudnn_benchmark: got true together with"):
        Config(cudnn_benchmark=True, **others)


def refusal(operation: str) -> RuntimeError:
    """As torch words it."""
    return RuntimeError(
        f"{operation} does not have a deterministic implementation, but you set "
        "'torch.use_deterministic_algorithms(True)'. You can turn off determinism just for this operation."
    )


def test_refused_layer_is_named() -> None:
    pool = nn.Sequential(nn.Conv2d(1, 1, 1), nn.AdaptiveAvgPool2d(2))
    network = nn.ModuleDict({"psp": pool, "up": nn.Upsample(scale_factor=2)})
    named = find_undeterministic(refusal("adaptive_avg_pool2d_backward_cuda"), network)
    assert named == "adaptive_avg_pool2d_backward_cuda (psp.1)"
    assert find_undeterministic(refusal("upsample_bilinear2d_backward_out_cuda"), network) == (
        "upsample_bilinear2d_backward_out_cuda (up)"
    )
    assert find_undeterministic(refusal("histc_cuda"), network) == "histc_cuda"
    assert find_undeterministic(RuntimeError("CUDA error: out of memory"), network) is None
