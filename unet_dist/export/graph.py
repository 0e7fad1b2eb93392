"""A network as an ONNX file: pixels in, logits out, of any size that the network takes.

Owns what the graph takes and gives, and what the file says about itself. Must not know runs or data sets.

The graph takes pixels as a file decodes to them, (N, H, W, C) uint8, and normalises them itself: a mean in other units, or
channels in another order, are the usual ways to get silently wrong labels out of a right file.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unet_dist.errors import ConfigError, ExtraError
from unet_dist.export.portable import constant_filters, crops_by_constants, free_sides, sides_that_add_up
from unet_dist.models.arguments import scale_logits
from unet_dist.models.contract import Network, TrainableNetwork, as_module, pixels_of
from unet_dist.models.onnx_model import NO_EXACT_TILES
from unet_dist.tiling.geometry import WindowSizes, aligned_halo
from unet_dist.wording import size

OPSET = 18
"""The lowest that torch's exporter writes, so that the most runtimes read it."""

INPUT, OUTPUT, COARSE = "pixels", "logits", "coarse_logits"
AXES = ("N", "H", "W")

# Protocol buffers end at 2 GiB, and a file with its weights beside it is no longer one file.
_LARGEST_BYTES = 2**31 - 2**20


class PixelsToLogits(nn.Module):
    """Compute logits of pixels: (N, H, W, C) -> (N, K, H - 2 * margin, W - 2 * margin) float32.

    Pixels are uint8, or float32 where the network was trained on another type, which it holds exactly.
    A network that scales its images gives them before they are interpolated, too: whoever scales them back interpolates once.
    """

    mean: Tensor
    std: Tensor
    limits: Tensor | None

    def __init__(self, model: TrainableNetwork) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(model.mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(model.std, dtype=torch.float32))
        limits = pixels_of(model).limits
        self.register_buffer("limits", None if limits is None else torch.tensor(limits, dtype=torch.float32))  # (C, 2)

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """(N, H, W, C) pixels -> (N, K, h, w) logits, and coarse ones where the network gives them."""
        values = pixels.to(torch.float32)
        if self.limits is not None:
            values = torch.minimum(torch.maximum(values, self.limits[:, 0]), self.limits[:, 1])
        # (values - mean) / std, as convolutions: they keep an unknown side of a graph, where OpenCV 4 makes a 0 a 1 in arithmetic.
        images = values.permute(0, 3, 1, 2)  # (N, C, H, W)
        ones, channels = torch.ones_like(self.mean)[:, None, None, None], len(self.mean)
        images = F.conv2d(images, ones, bias=-self.mean, groups=channels)
        images = F.conv2d(images, (1 / self.std)[:, None, None, None], groups=channels)
        if gives_coarse(self.model):
            coarse: Tensor = self.model.coarse_logits(images)  # type: ignore[attr-defined]
            return scale_logits(coarse, (images.shape[2], images.shape[3])), coarse
        logits: Tensor = self.model(images)
        return logits


def gives_coarse(model: TrainableNetwork) -> bool:
    """Whether a network scales its images, and tells its logits before they are interpolated."""
    return model.resize_to is not None and hasattr(model, "coarse_logits")


class SameSize(nn.Module):
    """Compute logits of whole pictures of any size: (N, H, W, C) uint8 -> (N, K, H, W) float32, mirrored at their borders."""

    def __init__(self, model: TrainableNetwork) -> None:
        super().__init__()
        self.network = PixelsToLogits(model)
        self.sizes: WindowSizes = model.window_sizes

    def forward(self, pixels: Tensor) -> Tensor:
        """Pad, compute and cut to the picture's size."""
        _, height, width, _ = pixels.shape
        window = pixels.index_select(1, self._mirrored(height)).index_select(2, self._mirrored(width))
        found = self.network(window)
        logits: Tensor = found[0] if isinstance(found, tuple) else found
        return logits[:, :, :height, :width]

    def _mirrored(self, side: int) -> Tensor:
        """The rows that a window around `side` rows reads; in tensors, as the exporter has no other arithmetic of sizes."""
        sizes = self.sizes
        count = (side + 2 * sizes.margin - sizes.remainder + sizes.stride - 1) // sizes.stride
        last = torch.arange(side)[-1]
        period = 2 * last.clamp(min=1)
        rows = torch.remainder(torch.arange(sizes.stride * count + sizes.remainder) - sizes.margin, period)
        return torch.minimum(torch.minimum(rows, period - rows), last)


class Form(NamedTuple):
    """What a file takes: sides (height, width) that are fixed, and whether it pads its pictures itself."""

    sides: tuple[int, int] | None = None
    is_padded: bool = False


def require_onnx() -> None:
    """Refuse to begin without the packages of the extra.

    Raises:
        ExtraError: one of them is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExtraError(f"An export to ONNX needs {error.name}: pip install 'unet_dist[onnx]'.") from error


def write_onnx(path: Path, model: TrainableNetwork, about: dict[str, str], form: Form = Form()) -> None:  # noqa: B008
    """Write a network as one file.

    Args:
        model: in evaluation mode, float32, on the CPU.
        about: further words for the file's metadata.

    Raises:
        ConfigError: the network is too large for one file, or does not take these sides.
    """
    import onnx

    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    if num_bytes > _LARGEST_BYTES:
        raise ConfigError(
            f"The network has {size(num_bytes)} of weights, and an ONNX file holds 2. Use --format huggingface."
        )
    sizes: WindowSizes = model.window_sizes
    _require_sides(form, sizes)
    # Three different sizes, none of them 1: the exporter takes equal ones, and a 1, for constants.
    shape = (2, sizes.minimum + 2 * sizes.stride, sizes.minimum + 3 * sizes.stride, model.in_channels)
    dynamic: Any = None
    if form.sides is not None:
        shape = (1, *form.sides, model.in_channels)
    else:
        named = ({name: torch.export.Dim(name, min=2) for name in AXES[1:]}) if form.is_padded else None
        sides = {axis + 1: named[name] if named else _side(name, sizes) for axis, name in enumerate(AXES[1:])}
        dynamic = ({0: torch.export.Dim(AXES[0], min=1), **sides},)
    network = SameSize(model) if form.is_padded else PixelsToLogits(model)
    names = [OUTPUT, COARSE] if gives_coarse(model) and not form.is_padded else [OUTPUT]
    example = torch.zeros(shape, dtype=getattr(torch, input_type(model)))
    proto = None
    if form == Form() and crops_by_constants(as_module(model)):
        with sides_that_add_up(as_module(model)):
            proto = _export(network, example, names, None)
        proto = proto if free_sides(proto.graph, sizes) else None
    if proto is None:
        proto = _export(network, example, names, dynamic)
    onnx.helper.set_model_props(proto, {**metadata(model, form), **about})
    onnx.checker.check_model(proto)
    onnx.save_model(proto, str(path))


def _export(network: nn.Module, example: Tensor, outputs: list[str], dynamic: Any) -> Any:
    """Have torch write the graph; dynamic None fixes the sides of the example."""
    with _silence(), constant_filters(network), torch.no_grad():
        program = torch.onnx.export(
            network.eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=outputs,
            dynamic_shapes=dynamic,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter from talking about itself; what it makes is compared with the original."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _side(name: str, sizes: WindowSizes) -> Any:
    """The sides that the network takes: stride * n + remainder."""
    number = torch.export.Dim(name, min=sizes.minimum // sizes.stride)
    side = sizes.stride * number if sizes.stride > 1 else number
    return side + sizes.remainder if sizes.remainder else side


def input_type(model: Network) -> str:
    """The type of the file's input."""
    return "uint8" if pixels_of(model).dtype == "uint8" else "float32"


def _require_sides(form: Form, sizes: WindowSizes) -> None:
    if form.sides is None or form.is_padded:
        return
    for side in form.sides:
        if sizes.round_up(side) != side:
            lower, upper = sizes.round_down(side), sizes.round_up(side)
            near = f"{upper}" if lower is None else f"{lower} or {upper}"
            raise ConfigError(
                f"sides: got {side}, which the network does not take as it is. Choose {near}, or add --padded true."
            )


_PADS = "it mirrors each picture at its borders, so that a window of a larger picture would get borders of its own"


def metadata(model: TrainableNetwork, form: Form = Form()) -> dict[str, str]:  # noqa: B008
    """What a reader of the file must know to use it, as ONNX metadata: words to words, lists as JSON."""
    sizes, locality = model.window_sizes, model.locality
    obstacle = model.locality_obstacle
    if form.is_padded:
        sizes, locality, obstacle = WindowSizes(stride=1, remainder=0, minimum=2, margin=0), None, _PADS
    height, width = (f"{axis} - {2 * sizes.margin}" if sizes.margin else axis for axis in AXES[1:])
    said = {
        "model_type": model.model_type,
        "input": f"{INPUT}: (N, H, W, {model.in_channels}) {input_type(model)} as decoded from a file; normalised inside by mean "
        "and std",
        "output": f"{OUTPUT}: (N, {model.num_classes}, {height}, {width}) float32; the label is the argmax over axis 1",
        "sides": "H and W: {} and {}, N: 1".format(*form.sides)
        if form.sides is not None
        else f"H and W: {sizes.minimum} or more, remainder {sizes.remainder} by {sizes.stride}",
        "fixed_sides": form.sides,
        "minimum_side": sizes.minimum,
        "side_remainder": sizes.remainder,
        "side_stride": sizes.stride,
        "margin": sizes.margin,
        "in_channels": model.in_channels,
        "num_classes": model.num_classes,
        "resize_to": model.resize_to,
        "mean": list(model.mean),
        "std": list(model.std),
        "pixels": pixels_of(model).record(),
        "class_names": model.class_names,
        "ignore_index": model.ignore_index,
        "ignore_index_meaning": "this class is no answer: leave its logit out of the argmax (null: every class is one)",
        "halo": None if locality is None else aligned_halo(sizes, locality),
        "stride": None if locality is None else locality.stride,
        "tiles": "windows whose origins differ by multiples of stride agree on all pixels at least halo from their edges"
        if locality is not None
        else f"{NO_EXACT_TILES}{obstacle}",
    }
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in said.items()}
