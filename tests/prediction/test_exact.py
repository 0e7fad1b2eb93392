"""Proves that flips, probabilities, left-out background and smaller windows after an overflow keep tiles exact.

Compared in float64 with passes over the whole image, and between tile sizes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.prediction.parts import build, draw, make_tiles
from unet_dist.errors import ConfigError, LocalityError
from unet_dist.imaging.reader import ArrayReader, read_window
from unet_dist.machine.memory import is_out_of_memory
from unet_dist.models.answers import Answers
from unet_dist.prediction.exact import ExactTiles
from unet_dist.prediction.image import predict_image, predict_logits
from unet_dist.prediction.tiles import Tiles, compute_pieces, fill
from unet_dist.prediction.values import Recipe, sees_something

EVERYTHING = Recipe(probabilities="float16", confidence="uint8", flip=True)


def compute(
    model: Any, image: np.ndarray, recipe: Recipe, tile_size: int, *, window_batch: int = 2, tiles: Tiles | None = None
) -> dict[str, np.ndarray]:
    """Compute the rasters of an image, batch by batch."""
    tiles = tiles or make_tiles(model, recipe)
    plan = tiles.plan(image.shape[:2], tile_size)
    rasters = {
        kind: np.zeros((*planes, *image.shape[:2]), dtype)
        for kind, (planes, dtype) in recipe.rasters(model.num_classes).items()
    }
    reader = ArrayReader(image)
    for start in range(0, len(plan), window_batch):
        pieces = [
            tiles.read(0, reader, plan, plan[index]) for index in range(start, min(start + window_batch, len(plan)))
        ]
        for piece, entry in zip(pieces, compute_pieces(tiles, pieces), strict=True):
            row, col, height, width = piece.tile
            values = None if entry is None else {kind: value.numpy() for kind, value in entry.items()}
            for kind, part in fill(recipe.rasters(model.num_classes), piece, values).items():
                rasters[kind][..., row : row + height, col : col + width] = part
    return rasters


def whole_probabilities(model: Any, image: np.ndarray) -> Tensor:
    return predict_logits(model, image).softmax(dim=0)


@pytest.mark.parametrize(
    "options", [{}, {"upsampling": "bilinear"}, {"padding": "same"}, {"stem_stride": 2, "depth": 1}], ids=str
)
@pytest.mark.parametrize("shape", [(40, 37), (70, 131)])
def test_flips_equal_the_mirror_image_as_a_whole(options: dict[str, Any], shape: tuple[int, int]) -> None:
    model, image = build(**options), draw(*shape)
    mirrored = whole_probabilities(model, np.ascontiguousarray(image[:, ::-1])).flip(-1)
    mean = (whole_probabilities(model, image) + mirrored) / 2
    assert not torch.equal(mean.argmax(0), mirrored.argmax(0)), "the mirror image makes a difference here"
    for tile_size in (72, 108):
        rasters = compute(model, image, EVERYTHING, tile_size)
        np.testing.assert_array_equal(rasters["labels"], mean.argmax(0).numpy())
        np.testing.assert_allclose(rasters["probabilities"], mean.numpy(), rtol=1e-3, atol=1e-7)  # half precision
        np.testing.assert_allclose(rasters["confidence"], mean.amax(0).numpy() * 255, atol=0.5 + 1e-9)


def turns(pixels: np.ndarray) -> list[np.ndarray]:
    """The eight turns and mirror images of (H, W, ...), by numpy's own turning."""
    return [np.rot90(side, quarter) for side in (pixels, pixels[:, ::-1]) for quarter in range(4)]


@pytest.mark.parametrize("options", [{}, {"upsampling": "bilinear", "padding": "same"}], ids=str)
def test_rotations_equal_the_turned_image_as_a_whole(options: dict[str, Any]) -> None:
    """Also in smaller windows, after memory ran out."""
    model, image, said = build(**options), draw(70, 131), []
    recipe = Recipe(probabilities="float32", rotations=True)
    mean = np.zeros((5, 70, 131))
    # A picture of indices tells where each pixel of a turned image came from.
    for turned, places in zip(turns(image), turns(np.arange(70 * 131).reshape(70, 131)), strict=True):
        found = whole_probabilities(model, np.ascontiguousarray(turned)).numpy()
        mean.reshape(5, -1)[:, places.ravel()] += found.reshape(5, -1) / 8
    for tile_size in (72, 108):
        np.testing.assert_allclose(compute(model, image, recipe, tile_size)["probabilities"], mean, atol=1e-7)
    expected = compute(model, image, recipe, 140)
    model.register_forward_pre_hook(_Small(2 * 80 * 80))
    tiles = ExactTiles(model, recipe, say=said.append)
    found = compute(model, image, recipe, 140, tiles=tiles)
    assert said
    np.testing.assert_allclose(found["probabilities"], expected["probabilities"], atol=1e-7)


def test_labels_do_not_change_with_the_probabilities() -> None:
    model, image = build(ignore_index=2), draw(60, 90)
    rasters = compute(model, image, Recipe(probabilities="uint8"), 60)
    np.testing.assert_array_equal(rasters["labels"], predict_image(model, image, 60))
    assert not rasters["probabilities"][2].any(), "the ignored class is no answer"
    totals = rasters["probabilities"].astype(int).sum(axis=0)
    assert abs(totals - 255).max() <= 2


def slide_like(height: int, width: int) -> np.ndarray:
    """An image with a wide bright background, and specks in it."""
    image = np.full((height, width, 3), 240, dtype=np.uint8)
    image[30:50, 20:60] = draw(20, 40)
    image[5, width - 8, 1] = 234
    return image


def test_background_is_left_out_by_what_a_pixel_sees() -> None:
    model, image = build(), slide_like(100, 150)
    recipe = Recipe(skip_background=True, confidence="uint8")
    halo = make_tiles(model, recipe).plan((100, 150), 60).halo
    padded = read_window(ArrayReader(image), -halo, -halo, 100 + 2 * halo, 150 + 2 * halo)
    seen = np.array(
        [
            [(padded[r : r + 2 * halo + 1, c : c + 2 * halo + 1].min(axis=2) < 235).any() for c in range(150)]
            for r in range(100)
        ]
    )
    np.testing.assert_array_equal(sees_something(padded, halo, 100, 150), seen)
    assert 0.1 < seen.mean() < 0.9
    expected = np.where(seen, predict_image(model, image, 60), 255)
    for tile_size in (60, 140):
        rasters = compute(model, image, recipe, tile_size)
        np.testing.assert_array_equal(rasters["labels"], expected)
        assert not rasters["confidence"][~seen].any()


class _Small:
    """Refuses windows of more pixels than a made-up memory holds, as torch does on a CPU."""

    def __init__(self, pixels: int) -> None:
        self.pixels = pixels

    def __call__(self, module: Any, inputs: tuple[Tensor]) -> None:
        if (
            inputs[0].device.type == "cpu"
            and inputs[0].shape[0] * inputs[0].shape[2] * inputs[0].shape[3] > self.pixels
        ):
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            )


@pytest.mark.parametrize("recipe", [Recipe(), EVERYTHING], ids=["labels", "everything"])
def test_smaller_windows_after_an_overflow_give_the_same(recipe: Recipe) -> None:
    model, image, said = build(), draw(130, 210), []
    expected = compute(model, image, recipe, 140)
    model.register_forward_pre_hook(_Small(2 * 80 * 80))
    tiles = ExactTiles(model, recipe, say=said.append)
    for kind, values in compute(model, image, recipe, 140, tiles=tiles).items():
        np.testing.assert_array_equal(values, expected[kind], err_msg=kind)
    sentence = (
        r"Memory ran out with 2 window\(s\) of (\d+) px at once: continuing with 1 of at most \1 px; the result is .*\."
    )
    assert re.fullmatch(sentence, said[0])
    assert len(said) <= 3, "said once per step, not once a batch"


class _NoNewTensors(TorchDispatchMode):
    """Refuses tensors made of numbers: on a GPU such a one is copied there, and the copy waits for all that came before."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket.__name__ != "lift_fresh", "a tensor made of numbers"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_probabilities_leave_the_ignored_class_out_without_waiting(dtype: torch.dtype) -> None:
    logits = torch.randn(2, 5, 3, 4, dtype=dtype)
    before = logits.clone()
    with _NoNewTensors():
        probabilities = Answers(1).probabilities(logits)
    assert torch.equal(logits, before), "they choose the labels yet"
    others = logits.float()[:, [0, 2, 3, 4]].softmax(1)
    assert torch.equal(probabilities[:, 1], torch.zeros(2, 3, 4))
    torch.testing.assert_close(probabilities[:, [0, 2, 3, 4]], others)
    with pytest.raises(AssertionError, match="a tensor made of numbers"), _NoNewTensors():
        logits.index_fill(1, torch.tensor([1]), 0.0)


def test_no_memory_for_the_smallest_window_is_a_sentence() -> None:
    model = build()
    model.register_forward_pre_hook(_Small(0))
    with pytest.raises(ConfigError, match=r"tile_size: memory ran out, .* Free memory, or use a smaller network\."):
        compute(model, draw(60, 60), Recipe(), 60)


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"), True),
        (
            RuntimeError("NCCL error in: x.cpp:1\nncclUnhandledCudaError\nLast error:\nCuda failure 2 'out of memory'"),
            True,
        ),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("GET was unable to find an engine to execute this computation"), True),
        (RuntimeError("shape mismatch"), False),
    ],
    ids=str,
)
def test_lack_of_memory_is_told_from_other_failures(error: BaseException, is_memory: bool) -> None:
    assert is_out_of_memory(error) is is_memory


def test_torch_says_it_so_on_a_cpu() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**46, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("make", [lambda model: make_tiles(model, Recipe())])
def test_a_network_without_halo_is_refused(make: Callable[[Any], Any]) -> None:
    with pytest.raises(LocalityError, match="GroupNorm"):
        make(build(norm="group"))


def test_a_cpu_computes_large_windows_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the same pieces, as many at once as their pixels allow; the values are the same."""
    model, plan_of = build(), make_tiles(build(), Recipe())
    plan = plan_of.plan((100, 140), 60)
    reader = ArrayReader(draw(100, 140))
    pieces = [plan_of.read(0, reader, plan, tile) for tile in plan][:5]
    counts: list[int] = []
    model.register_forward_pre_hook(lambda _, inputs: counts.append(len(inputs[0])))
    found = []
    for at_once_px, expected in ((10**6, [5]), (2 * 60 * 60, [2, 2, 1]), (1, [1] * 5)):
        monkeypatch.setattr("unet_dist.tiling.windows._CPU_AT_ONCE_PX", at_once_px)
        counts.clear()
        found.append([values["labels"] for values in make_tiles(model, Recipe()).compute(pieces)])
        assert counts == expected
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
