"""Proves that sides, halo and stride, derived by integers, are those of the network: pixels are perturbed and observed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.models.promises import is_contiguous, support
from unet_dist.errors import SizeError
from unet_dist.models.receptive_field import unet_locality, unet_margin, unet_window_sizes
from unet_dist.models.unet import UNet

DEPTHS = [1, 2, 3, 4]
PADDINGS = ["valid", "same"]
UPSAMPLINGS = ["transposed", "bilinear"]
LOCAL_NORMS = ["none", "weight", "batch"]


def averaging(model: UNet) -> UNet:
    """Make every weight positive and every offset 0, so that nothing is rectified away or cancels.

    Then the output of an image that is 0 but for some pixels is other than 0 exactly where it depends on them.
    Standardised filters have mean 0 whatever their weights: there, large offsets keep every ReLU open.
    """
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                if model.norm != "weight":
                    module.weight.fill_(1 / module.weight[0].numel())
                if module.bias is not None:
                    module.bias.fill_(100.0 if model.norm == "weight" else 0.0)
    return model.double().eval()


def rows_that_see(model: UNet, row: int, *, height: int) -> list[int]:
    """List the output rows, in coordinates of the input, that a row of the input reaches."""
    width = model.window_sizes.minimum
    if model.norm == "weight":
        generator = torch.Generator().manual_seed(0)
        image = torch.randn(1, 1, height, width, generator=generator, dtype=torch.float64)
        other = image.clone()
        other[:, :, row] += 10 * torch.randn(width, generator=generator, dtype=torch.float64)
        seen: Tensor = model(image) - model(other)
    else:
        image = torch.zeros(1, 1, height, width, dtype=torch.float64)
        image[:, :, row] = 1
        seen = model(image)
    rows = support(seen, dim=2)
    assert rows
    assert is_contiguous(rows)
    assert rows[0] > 0, "the image is too small to see where the influence ends"
    assert rows[-1] < seen.shape[2] - 1, "the image is too small to see where the influence ends"
    return [index + model.window_sizes.margin for index in rows]


@pytest.mark.parametrize("norm", LOCAL_NORMS)
@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("depth", DEPTHS)
def test_halo_is_exact(depth: int, padding: str, upsampling: str, norm: str) -> None:
    torch.manual_seed(0)
    check_halo(UNet(1, 2, base_channels=2, depth=depth, padding=padding, upsampling=upsampling, norm=norm))


@pytest.mark.parametrize("norm", LOCAL_NORMS)
@pytest.mark.parametrize("padding", PADDINGS)
def test_residual_blocks_keep_the_halo(padding: str, norm: str) -> None:
    torch.manual_seed(0)
    check_halo(UNet(1, 2, base_channels=2, depth=2, padding=padding, blocks="residual", norm=norm))


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(("depth", "stem_stride", "rates"), [(1, 1, [1, 2, 4]), (2, 1, [3]), (1, 2, [2, 1])])
def test_dilations_widen_the_halo(
    depth: int, stem_stride: int, rates: list[int], padding: str, upsampling: str
) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"depth": depth, "padding": padding, "upsampling": upsampling, "stem_stride": stem_stride}
    model = UNet(1, 2, base_channels=2, bottleneck_dilations=rates, **options)
    check_halo(model)
    assert model.locality is not None
    if (padding, upsampling) == ("valid", "transposed"):
        assert model.locality.halo == unet_locality(**options).halo + stem_stride * 2**depth * sum(rates)


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(("depth", "stem_stride"), [(1, 2), (2, 2), (1, 4), (2, 4)])
def test_halo_grows_with_the_stem_stride(depth: int, stem_stride: int, padding: str, upsampling: str) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"depth": depth, "padding": padding, "upsampling": upsampling}
    model = UNet(1, 2, base_channels=2, stem_stride=stem_stride, **options)
    check_halo(model)
    assert model.locality is not None
    assert model.locality.halo == stem_stride * unet_locality(**options).halo


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(("depth", "stem_stride"), [(1, 2), (2, 4)])
def test_a_bilinear_head_sees_half_a_block_more(depth: int, stem_stride: int, padding: str, upsampling: str) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"depth": depth, "padding": padding, "upsampling": upsampling, "stem_stride": stem_stride}
    model = UNet(1, 2, base_channels=2, head="bilinear", **options)
    check_halo(model)
    assert model.locality is not None
    assert model.locality.halo == unet_locality(**options).halo + stem_stride // 2


@torch.no_grad()
def check_halo(model: UNet) -> None:
    """The pixel just outside a window reaches the window's output up to `halo` from its edge, and no further."""
    averaging(model)
    locality, sizes = model.locality, model.window_sizes
    assert locality is not None
    assert locality.stride == model.stem_stride * 2**model.depth
    reach = locality.halo + locality.stride + sizes.margin + 1
    start = -(-reach // locality.stride) * locality.stride  # where a window could begin: a multiple of the stride
    height = sizes.round_up(start + reach + 2)
    # A window that begins at `start` does not see row start - 1.
    assert rows_that_see(model, start - 1, height=height)[-1] == start + locality.halo - 1
    # A window that ends before `stop` does not see row `stop`.
    stop = start + sizes.remainder
    assert rows_that_see(model, stop, height=height + locality.stride)[0] == stop - locality.halo


@torch.no_grad()
@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_columns_behave_as_rows(depth: int, upsampling: str) -> None:
    model = averaging(UNet(1, 1, base_channels=1, depth=depth, upsampling=upsampling))
    side = model.window_sizes.minimum + 3 * model.window_sizes.stride
    image = torch.zeros(1, 1, side, side, dtype=torch.float64)
    image[0, 0, side // 2, side // 2 + 1] = 1
    assert torch.allclose(model(image.mT), model(image).mT, rtol=1e-12, atol=0)


@torch.no_grad()
def test_shift_by_the_stride_shifts_the_output_and_other_shifts_do_not() -> None:
    torch.manual_seed(0)
    model = UNet(1, 2, base_channels=2, depth=2).double().eval()
    image = torch.randn(1, 1, 64, 44, dtype=torch.float64)
    whole = model(image)
    side = 56
    for shift in range(9):
        shifted = model(image[:, :, shift : shift + side])
        expected = whole[:, :, shift : shift + shifted.shape[2]]
        is_equal = bool((shifted - expected).abs().max() < 1e-12)
        assert is_equal == (shift % 4 == 0), shift


@torch.no_grad()
def test_distance_exceeds_the_halo_only_within_a_cell_of_the_grid() -> None:
    """An output pixel may depend on pixels up to stride - 1 beyond the halo: why windows must begin on the grid."""
    model = averaging(UNet(1, 1, base_channels=1, depth=4))
    distances = set()
    for row in range(224, 240):
        rows = rows_that_see(model, row, height=508)
        distances.add(max(rows[-1] - row, row - rows[0]))
    assert max(distances) == 92 + 15


def test_the_papers_numbers() -> None:
    sizes = unet_window_sizes(4, padding="valid")
    assert (sizes.stride, sizes.remainder, sizes.minimum, sizes.margin) == (16, 12, 188, 92)
    assert sizes.output(572) == 388
    assert sizes.output(668) == 484
    with pytest.raises(SizeError, match="716 or 732"):
        sizes.require(724, "input_size")
    locality = unet_locality(4, padding="valid", upsampling="transposed")
    assert (locality.halo, locality.stride) == (92, 16)


@torch.no_grad()
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_every_side_that_passes_is_valid_and_no_other(depth: int, padding: str) -> None:
    model = UNet(1, 1, base_channels=1, depth=depth, padding=padding)
    sizes = model.window_sizes

    def output_side(side: int) -> int | None:
        """Compute the side of the output; None where a map would be empty or a pooling would drop a row."""
        kept = []
        for _ in range(depth):
            side -= 4 if padding == "valid" else 0
            if side < 1 or side % 2:
                return None
            kept.append(side)
            side //= 2
        side -= 4 if padding == "valid" else 0
        for _ in kept:
            side = 2 * side - (4 if padding == "valid" else 0)
        return side if side >= 1 else None

    for side in range(1, sizes.minimum + 3 * sizes.stride):
        expected = output_side(side)
        assert sizes.is_valid(side) == (expected is not None), side
        if expected is not None:
            assert sizes.output(side) == expected
            assert model(torch.zeros(1, 1, side, sizes.minimum)).shape[2] == expected


def test_margin_doubles_with_each_level() -> None:
    assert [unet_margin(depth, padding="valid") for depth in range(1, 7)] == [8, 20, 44, 92, 188, 380]
    assert [unet_margin(depth, padding="same") for depth in range(1, 7)] == [0] * 6
