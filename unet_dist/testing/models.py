"""The promises of a network and of an encoder, as checks that anyone runs on theirs: `check_model(wrap(module, ...))`.

Everything is computed in float64 on the CPU, on a copy. What the rest of the package leans on is proven by values: sizes, exact
tiles, the gradient of tiles, what couples a batch, the folder, the exported graph.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unet_dist.models.contract import TrainableNetwork, as_module
from unet_dist.models.encoder_unet import EncoderUNet
from unet_dist.models.encoders.placement import Placed
from unet_dist.models.encoders.registry import MakeEncoder, describe_encoder
from unet_dist.models.registry import load_model
from unet_dist.testing.checking import promise
from unet_dist.tiling.geometry import aligned_halo
from unet_dist.wording import first_line

_ROUNDING = 1e-12
"""Of the largest value, in float64."""


def check_model(model: TrainableNetwork, *, trust: Sequence[str] = (), exports: bool = False) -> None:
    """Check all promises of a network.

    Args:
        trust: packages that its folder may name.
        exports: also export it to ONNX and compare; takes the extra `onnx`.

    Raises:
        BrokenPromiseError: the first that is not kept, in a sentence.
    """
    check_sizes(model)
    check_locality(model)
    check_tile_gradients(model)
    check_batch(model)
    with tempfile.TemporaryDirectory() as folder:
        check_folder(model, Path(folder), trust=trust)
        if exports:
            check_export(model, Path(folder) / "model.onnx")


def check_encoder(encoder: str | MakeEncoder, *, depth: int = 2, in_channels: int = 3) -> None:
    """Check the promises of an encoder: what it states, and those of the U-Net on it.

    Args:
        encoder: its word, such as my_package.encoders:make(width=8), or what makes it.
        depth: halvings of the side; at more the windows are large, and the check is slow.

    Raises:
        BrokenPromiseError: the first that is not kept, in a sentence.
    """
    stated = describe_encoder(encoder)
    promise(
        len(stated.channels) >= depth and min(stated.channels) >= 1 and stated.std > 0,
        f"encoder: got channels {list(stated.channels)} and std {stated.std}, expected {depth} counts, and a std above 0.",
    )
    model: Any = EncoderUNet(in_channels, 3, encoder=encoder, base_channels=4, depth=depth)
    side, margin = model.window_sizes.round_up(model.window_sizes.minimum + 1), model.window_sizes.margin
    network: Any = _twin(model)
    try:
        maps = network.backbone(Placed(_images(model, side, side), -margin))
    except RuntimeError as error:  # torch's, of a map that is used up
        promise(False, f"encoder: the window of {side} px that `needed` asks for is too small: {first_line(error)}")
    got, expected = [placed.values.shape[1] for placed in maps], list(stated.channels)[:depth]
    promise(got == expected, f"encoder: its maps have {got} channels, expected {expected} as it states.")
    nn.init.normal_(model.classifier.weight)  # nearly 0 at first: nothing would be seen through it
    check_sizes(model)
    check_locality(model)
    check_tile_gradients(model)
    check_batch(model)


def check_sizes(model: TrainableNetwork) -> None:
    """The sides that it states are taken, and give what they should, also for images that are not square."""
    network, sizes = _twin(model), model.window_sizes
    height, width = sizes.minimum, sizes.round_up(sizes.minimum + 1)
    for shape in ((height, width), (width, height)):
        got = tuple(network(_images(model, *shape, count=2)).shape)
        expected = (2, model.num_classes, *map(sizes.output, shape))
        promise(got == expected, f"sizes: images of {shape} px gave logits {got}, window_sizes say {expected}.")


def check_locality(model: TrainableNetwork) -> None:
    """C1: whatever window a pixel is computed in, if it is `halo` inside and the origin is on the grid, it is the whole image's.

    Where there is no halo, a reason is stated.
    """
    stated = model.locality is None, model.locality_obstacle is not None
    promise(
        stated[0] == stated[1],
        f"locality: got {model.locality} and the obstacle {model.locality_obstacle!r}: one of them is.",
    )
    if model.locality is None:
        return
    network, sizes, locality = _twin(model), model.window_sizes, model.locality
    side = sizes.round_up(2 * locality.halo + 1)
    image = _images(model, *(sizes.round_up(side + 2 * locality.stride + n) for n in (0, 1)))
    whole, trim = network(image), locality.halo - sizes.margin  # what of a window's output is not exact
    kept = side - 2 * locality.halo
    for row in range(0, image.shape[2] - side + 1, locality.stride):
        for col in range(0, image.shape[3] - side + 1, locality.stride):
            tile = network(image[:, :, row : row + side, col : col + side])[
                :, :, trim : trim + kept, trim : trim + kept
            ]
            expected = whole[:, :, row + trim : row + trim + kept, col + trim : col + trim + kept]
            difference = _difference(tile, expected)
            promise(
                difference <= _ROUNDING,
                f"locality: halo {locality.halo} and stride {locality.stride} are stated; a window at ({row}, {col}) differs "
                f"from the whole image by {difference:.1e} of the largest logit.",
            )


def check_tile_gradients(model: TrainableNetwork) -> None:
    """C2: where no batch and no pixels are coupled, the gradient of an image is the sum of its tiles' gradients."""
    if model.locality is None or model.couples_batch is not None:
        return
    sizes, locality = model.window_sizes, model.locality
    halo = aligned_halo(sizes, locality)
    step = sizes.round_up(2 * halo + locality.stride) - 2 * halo
    step -= step % locality.stride
    side = sizes.round_up(step + 2 * halo)
    image = _images(model, sizes.round_up(2 * step + 2 * halo), side)
    weights = torch.randn(1, model.num_classes, 2 * step, step, dtype=torch.float64)
    trim = halo - sizes.margin
    whole = _twin(model, trains=True)
    (whole(image)[:, :, trim : trim + 2 * step, trim : trim + step] * weights).sum().backward()
    tiled = _twin(model, trains=True)
    for row in (0, step):
        logits = tiled(image[:, :, row : row + side])[:, :, trim : trim + step, trim : trim + step]
        (logits * weights[:, :, row : row + step]).sum().backward()
    scale = max(float(p.grad.abs().max()) for p in whole.parameters() if p.grad is not None)
    for (name, one), other in zip(whole.named_parameters(), tiled.parameters(), strict=True):
        promise(one.grad is not None and other.grad is not None, f"gradients: {name} gets none.")
        assert one.grad is not None
        assert other.grad is not None
        difference = float((one.grad - other.grad).abs().max()) / scale
        promise(
            difference <= 1e-10, f"gradients: of {name} that of the tiles differs from the whole's by {difference:.1e}."
        )


def check_batch(model: TrainableNetwork) -> None:
    """The model's statement about the batch is true: where nothing couples its samples, one's logits do not depend on another."""
    network = _twin(model, trains=True)
    side = model.window_sizes.round_up(model.window_sizes.minimum + 1)
    images = _images(model, side, side, count=2)
    others = torch.stack([images[0], torch.randn_like(images[1])])
    found = []
    for batch in (images, others):
        torch.manual_seed(0)
        found.append(network(batch)[0].detach())
    difference = _difference(found[1], found[0])
    if model.couples_batch is None:
        promise(
            difference <= _ROUNDING,
            f"batch: couples_batch is None, and a sample's logits moved by {difference:.1e} with another sample beside it.",
        )


def check_folder(model: TrainableNetwork, folder: Path, *, trust: Sequence[str] = ()) -> None:
    """A folder restores the network: config, weights, logits, and its own bytes when saved again. No random number is drawn."""
    network = _twin(model)
    kept: Any = network
    kept.save_pretrained(folder / "one")
    before = torch.get_rng_state()
    loaded = load_model(folder / "one", trust=trust)
    promise(torch.equal(torch.get_rng_state(), before), "folder: loading drew random numbers.")
    promise(loaded.config() == kept.config(), f"folder: saved {kept.config()}, loaded {loaded.config()}.")
    promise(not loaded.training, "folder: a loaded network is in training mode.")
    image = _images(model, model.window_sizes.minimum, model.window_sizes.minimum)
    promise(torch.equal(loaded(image), network(image)), "folder: the loaded network computes something else.")
    again: Any = loaded
    again.save_pretrained(folder / "two")
    for name in ("config.json", "model.safetensors"):
        same = (folder / "one" / name).read_bytes() == (folder / "two" / name).read_bytes()
        promise(same, f"folder: {name} is another one when it is saved again.")


def check_export(model: TrainableNetwork, file: Path) -> None:
    """An ONNX file gives the labels of the network where its best two logits differ by more than rounding."""
    from unet_dist.export.graph import write_onnx

    network: Any = _twin(model).float()
    write_onnx(file, network, {})
    exported = load_model(file)
    side = model.window_sizes.round_up(model.window_sizes.minimum + 1)
    pixels = torch.randint(0, 256, (1, model.in_channels, side, side)).float()
    mean, std = (torch.tensor(list(values)).view(1, -1, 1, 1) for values in (model.mean, model.std))
    with torch.no_grad():
        ours, theirs = network((pixels - mean) / std), exported(pixels)
    best = ours.topk(2, dim=1).values
    decided = best[:, 0] - best[:, 1] > 1e-4 * ours.abs().max()
    promise(bool((ours.argmax(1) == theirs.argmax(1))[decided].all()), "export: the ONNX file gives other labels.")


def _twin(model: TrainableNetwork, *, trains: bool = False) -> nn.Module:
    """A copy in float64 on the CPU."""
    twin = copy.deepcopy(as_module(model)).double().cpu()
    return twin.train() if trains else twin.eval().requires_grad_(False)


def _images(model: TrainableNetwork, height: int, width: int, *, count: int = 1) -> Tensor:
    return torch.randn(count, model.in_channels, height, width, dtype=torch.float64)


def _difference(one: Tensor, other: Tensor) -> float:
    """The largest difference, in parts of the largest value."""
    return float((one - other).abs().max() / other.abs().max().clamp(min=1e-300))
