"""What a plain `nn.Module` does not say of itself: the sides it takes, how far its pixels see, what couples a batch.

Owns the measurements, all in float64 on the CPU. A size is tried. Locality is taken for proven only where three tests agree: no
number that is none (NaN) reaches further, other pixels far away change nothing to the last bit, and windows give what the whole
image gives at every shift of the grid. Anything less is an obstacle, and exact tiles are refused. The weights are drawn anew first:
a layer that starts at 0 would hide what it couples.

Must not know who trains or predicts.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from unet_dist.errors import ConfigError
from unet_dist.models.normalisation import batch_coupling, pixel_coupling
from unet_dist.tiling.geometry import Locality, WindowSizes

_FIRST_SIDES = (128, 160, 192, 256, 188, 140)
_LONGEST_PX = 2048
"""Of an image whose pixels are tried for how far they see; what sees further has no halo here."""
_DRAWS = 8
_GRID = (1, 2, 4, 8, 16, 32, 64)
_TOLERANCE = 1e-10
"""Of the largest logit: float64 rounds at 1e-16, a pixel that sees another grid differs by more than 1e-3."""


@dataclass(frozen=True)
class Measured:
    """The findings.

    Attributes:
        sizes: the sides it takes.
        locality: halo and stride where they are proven, else None.
        obstacle: why there is none.
        couples_batch: what couples the samples of a batch in training; None where nothing was seen to.
    """

    sizes: WindowSizes
    locality: Locality | None
    obstacle: str | None
    couples_batch: str | None

    def record(self) -> dict[str, Any]:
        """As config.json has it."""
        return asdict(self)

    @classmethod
    def read(cls, record: dict[str, Any]) -> Measured:
        """Read what `record` gave.

        Raises:
            ConfigError: it is not that.
        """
        try:
            values = {field.name: record[field.name] for field in fields(cls)}
            values["sizes"] = WindowSizes(**values["sizes"])
            values["locality"] = None if values["locality"] is None else Locality(**values["locality"])
            return cls(**values)
        except (KeyError, TypeError, AssertionError) as error:
            raise ConfigError(f"measured: got {record!r}, which differs from the measurement ({error!r}).") from None


def measure(network: nn.Module, in_channels: int, num_classes: int) -> Measured:
    """Measure a network, which is used up: its weights, its type and its mode are changed.

    Args:
        network: (N, in_channels, H, W) -> (N, num_classes, H - 2 margin, W - 2 margin), on the CPU.

    Raises:
        ConfigError: no side was found that it takes, or it gives something else; says what it gave.
    """
    name = type(network).__name__
    run = _Runner(network.double().eval(), name, in_channels, num_classes)
    with torch.no_grad():
        side = run.first_side()
        for _ in range(_DRAWS):
            _draw(network)
            logits = run(run.image(side, side))
            if not _equal(logits, logits.flip(2, 3)):  # else nothing passes, and nothing would be seen
                break
        sizes = _measure_sizes(run, side)
        obstacle = pixel_coupling(network)
        locality = None
        if obstacle is None:
            locality, obstacle = _measure_locality(run, sizes)
        return Measured(sizes, locality, obstacle, _batch_obstacle(network, run, side))


def _batch_obstacle(network: nn.Module, run: _Runner, side: int) -> str | None:
    """What makes a sample's result in training depend on how the batch is cut; None where nothing was seen to."""
    named = batch_coupling(network)
    if named is not None:
        return named
    for name, module in network.named_modules():
        if isinstance(module, _DropoutNd) and module.p > 0:
            return f"{name} ({type(module).__name__}): in training its mask is drawn anew for every micro-batch"
    network.train()
    pair, other = torch.rand(2, 2, run.in_channels, side, side, dtype=torch.float64)
    torch.manual_seed(0)
    first = run(pair)[0]
    torch.manual_seed(0)
    second = run(torch.stack([pair[0], other[1]]))[0]
    network.eval()
    if _equal(first, second):
        return None
    return f"{type(network).__name__}: in training a sample's logits were seen to depend on the others of its batch"


class _Runner:
    """Calls a network, and judges what it gives."""

    def __init__(self, network: nn.Module, name: str, in_channels: int, num_classes: int) -> None:
        self._network = network
        self.name = name
        self._failure = ""
        self.in_channels = in_channels
        self.num_classes = num_classes

    def __call__(self, images: Tensor) -> Tensor:
        logits: Tensor = self._network(images)
        return logits

    def image(self, height: int, width: int) -> Tensor:
        return torch.rand(1, self.in_channels, height, width, dtype=torch.float64) * 4 - 2

    def output(self, height: int, width: int) -> tuple[int, int] | None:
        """Height and width of the logits; None where the network refuses.

        Raises:
            ConfigError: it gives something else than logits.
        """
        try:
            logits: Any = self(self.image(height, width))
        except Exception as error:  # noqa: BLE001 whatever somebody else's layers raise at a side that they do not take
            self._failure = (str(error).strip().splitlines() or [type(error).__name__])[0]
            return None
        if not isinstance(logits, Tensor) or logits.ndim != 4 or logits.shape[1] != self.num_classes:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            raise ConfigError(
                f"model: {self.name} gave {got} for images (1, {self.in_channels}, {height}, {width}), expected one tensor of "
                f"logits (1, {self.num_classes}, height, width). Return it from forward, and take num_classes as an argument."
            )
        return int(logits.shape[2]), int(logits.shape[3])

    def first_side(self) -> int:
        """A side that the network takes.

        Raises:
            ConfigError: none was found.
        """
        for side in (*_FIRST_SIDES, *range(193, 257)):
            if self.output(side, side) is not None:
                return side
        raise ConfigError(
            f"model: {self.name} took no square image of 128 to 256 px (the last time: {self._failure}). Expected an nn.Module "
            f"from images (N, {self.in_channels}, H, W) to logits."
        )


def _draw(network: nn.Module) -> None:
    """Draw every weight anew: filters in scale, offsets and gains above 0, so that most values pass the rectifiers."""
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 1.4 / math.sqrt(parameter[0].numel()))
        else:
            parameter.data.uniform_(0.2, 1)
    for module in network.modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)


def _measure_sizes(run: _Runner, side: int) -> WindowSizes:
    """Find the distance of sides that are taken, and the smallest of them."""
    got = run.output(side, side) or (0, 0)
    margin = (side - got[0]) // 2

    def takes(other: int) -> bool:
        return other > 2 * margin and run.output(other, side) == (other - 2 * margin, side - 2 * margin)

    stride = next((step for step in _GRID if all(takes(side + n * step) for n in (0, 1, 2, 3))), None)
    if stride is None or margin < 0:
        raise ConfigError(
            f"model: {run.name} gave logits of {got[0]}x{got[1]} px for an image of {side}x{side}. Expected those of the image's "
            "own pixels, less a border that is the same at every size. Scale them up at the end of forward."
        )
    taken, refused = 0, side // stride + 1  # in strides below `side`
    while refused - taken > 1:
        middle = (taken + refused) // 2
        square = run.output(side - middle * stride, side - middle * stride) if side > middle * stride else None
        is_taken = square == (side - middle * stride - 2 * margin,) * 2 and side - middle * stride > 2 * margin
        taken, refused = (middle, refused) if is_taken else (taken, middle)
    return WindowSizes(stride=stride, remainder=side % stride, minimum=side - taken * stride, margin=margin)


def _measure_locality(run: _Runner, sizes: WindowSizes) -> tuple[Locality | None, str | None]:
    """Find halo and stride of both axes, or the reason why there are none."""
    stride = sizes.stride * math.ceil(_GRID[-1] / sizes.stride)  # a multiple of any grid that is tried
    length = 256
    while length <= _LONGEST_PX:
        halos = [_reach(run, sizes, length, stride, axis) for axis in (2, 3)]
        if None not in halos:
            halo = max(halo for halo in halos if halo is not None)
            return _measure_grid(run, sizes, length, halo)
        length *= 2
    return None, (
        f"{run.name}: its pixels were seen to depend on others {_LONGEST_PX // 4} px away, as far as was tried, or on all of "
        "the image"
    )


def _span(sizes: WindowSizes, length: int, stride: int) -> tuple[int, int, int]:
    """A long side that is taken, and first and last row of a window in its middle, on the grid."""
    total = sizes.round_up(length + 2 * sizes.margin)
    first = stride * max(1, total // 4 // stride)
    return total, first, first + (sizes.round_down(total - 2 * first) or sizes.minimum)


def _reach(run: _Runner, sizes: WindowSizes, length: int, stride: int, axis: int) -> int | None:
    """How far inside a window no pixel outside of it is seen; None where no pixel is free of them."""
    total, first, last = _span(sizes, length, stride)
    side = sizes.round_up(max(sizes.minimum, 32))
    image = run.image(*((total, side) if axis == 2 else (side, total)))
    inside = torch.zeros(total, dtype=torch.bool)
    inside[first:last] = True
    mask = inside.view(-1, 1) if axis == 2 else inside.view(1, -1)
    logits = run(image.masked_fill(~mask, torch.nan)).movedim(axis, 0).flatten(1)  # (rows, ...)
    free = (~logits.isnan()).all(1).nonzero().flatten().tolist()
    if not free or free != list(range(free[0], free[-1] + 1)):
        return None
    # What selects by comparing lets no NaN through: other pixels outside must change nothing either.
    rows = slice(free[0], free[-1] + 1)
    expected = run(image).movedim(axis, 0).flatten(1)[rows]
    for offset in (-5.0, 0.0, 5.0):
        other = torch.where(mask, image, run.image(*image.shape[2:]) * 3 + offset)
        if not torch.equal(run(other).movedim(axis, 0).flatten(1)[rows], expected):
            return None
    return max(free[0] + sizes.margin - first, last - (free[-1] + 1 + sizes.margin), sizes.margin)


def _measure_grid(run: _Runner, sizes: WindowSizes, length: int, halo: int) -> tuple[Locality | None, str | None]:
    """Find the shifts by which windows give what the whole image gives, on both axes at once."""
    side = sizes.round_up(2 * halo + max(16, sizes.stride))
    for step in _GRID:
        if step % sizes.stride:
            continue
        image = run.image(*(sizes.round_up(side + 3 * step),) * 2)
        whole = run(image)
        scale = whole.abs().max()
        trim, kept = halo - sizes.margin, side - 2 * halo
        is_exact = bool(scale > 0) and not _equal(whole, whole.flip(2, 3))
        for shift in (step, 3 * step):
            tile = run(image[:, :, shift : shift + side, shift : shift + side])
            got = tile[:, :, trim : trim + kept, trim : trim + kept]
            at = slice(shift + trim, shift + trim + kept)
            is_exact = is_exact and bool((got - whole[:, :, at, at]).abs().max() <= _TOLERANCE * scale)
        if is_exact:
            return Locality(halo=halo, stride=step), None
    return (
        None,
        f"{run.name}: its logits on a window were seen to differ from those on the whole image, at every shift that was tried",
    )


def _equal(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= _TOLERANCE * one.abs().max())
