"""A network that was exported to ONNX, computed by onnxruntime: predicts as the one it was made from.

Owns the reading of this file. What it needs to know stands in the file's own metadata, so that this is also the proof that
the metadata suffice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unet_dist.errors import CheckpointError, ConfigError, ExtraError
from unet_dist.imaging.pixels import Pixels
from unet_dist.models.arguments import MOST, Described, keep_description, scale_logits
from unet_dist.storage.typed import parse_json
from unet_dist.tiling.geometry import Locality, WindowSizes
from unet_dist.wording import first_line, shorten

SUFFIX = ".onnx"

NO_EXACT_TILES = "none are exact: "
"""Before the layer that couples all pixels, in the file's word on tiles."""


def _require_sides(
    stride: int,
    remainder: int,
    minimum: int,
    margin: int,
    halo: int | None,
    grid: int | None,
    resize_to: Sequence[int] | None,
) -> None:
    """Refuse sides that no network has. Raises: ValueError."""
    is_whole = (
        1 <= stride <= MOST and 1 <= minimum <= MOST and 0 <= remainder < stride and minimum % stride == remainder
    )
    is_inside = margin >= 0 and 2 * margin < minimum
    is_local = (halo is None) == (grid is None) and (halo is None or margin <= halo <= MOST)
    is_grid = grid is None or 1 <= grid <= MOST
    is_scaled = resize_to is None or (len(resize_to) == 2 and all(1 <= side <= MOST for side in resize_to))
    if not (is_whole and is_inside and is_local and is_grid and is_scaled):
        raise ValueError(
            f"got side_stride {stride}, side_remainder {remainder}, minimum_side {minimum}, margin {margin}, halo {halo}, "
            f"stride {grid}, resize_to {shorten(str(resize_to))}"
        )


def _value(said: Mapping[str, str], key: str, schema: Any) -> Any:
    return parse_json(said[key], schema, f"its {key}", error=CheckpointError, remedy="Export it again.")


class OnnxModel(Described, nn.Module):
    """Segment images: (N, in_channels, H, W) of pixels 0 to 255 -> logits (N, num_classes, H - 2 * margin, W - 2 * margin).

    For prediction only, on the CPU. The graph normalises, so `mean` and `std` here are those that leave pixels as they are.

    Raises:
        CheckpointError: no ONNX file, or one that unet_dist did not write.
        ExtraError: onnxruntime is not installed.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._session = open_session(path)
        outputs = [output.name for output in self._session.get_outputs()]
        self._finest = "coarse_logits" if "coarse_logits" in outputs else "logits"
        said = self._session.get_modelmeta().custom_metadata_map
        try:
            fixed = _value(said, "fixed_sides", list[int] | None) if "fixed_sides" in said else None
            self.model_type = shorten(said["model_type"])
            keep_description(
                self,
                _value(said, "in_channels", int),
                _value(said, "num_classes", int),
                mean=_value(said, "mean", list[float]),
                class_names=_value(said, "class_names", list[str] | None),
                ignore_index=_value(said, "ignore_index", int | None),
            )
            self.resize_to: list[int] | None = _value(said, "resize_to", list[int] | None)
            self.pixels = Pixels.of(_value({"pixels": "{}", **said}, "pixels", dict[str, Any]), self.in_channels)
            keys = ("side_stride", "side_remainder", "minimum_side", "margin")
            stride, remainder, minimum, margin = (_value(said, key, int) for key in keys)
            halo, grid = _value(said, "halo", int | None), _value(said, "stride", int | None)
            _require_sides(stride, remainder, minimum, margin, halo, grid, self.resize_to)
            self.window_sizes = WindowSizes(stride=stride, remainder=remainder, minimum=minimum, margin=margin)
            self._require_graph()
        except (KeyError, ValueError, TypeError, ConfigError, CheckpointError) as error:
            raise CheckpointError(
                f"{path} does not say what unet_dist writes into an ONNX file ({type(error).__name__}: {error}). Expected one "
                "made by unet-dist export --format onnx."
            ) from error
        if fixed is not None:
            raise CheckpointError(
                f"{path} takes pictures of {fixed[0]}x{fixed[1]} only and is for other runtimes. Export it without --sides."
            )
        self.locality = None if halo is None or grid is None else Locality(halo, grid)
        self.locality_obstacle = shorten(said["tiles"]).removeprefix(NO_EXACT_TILES) if halo is None else None
        self.zero: list[float] = self.mean
        self.mean, self.std = [0.0] * self.in_channels, [1.0] * self.in_channels
        self._digest = hashlib.sha256(path.read_bytes()).hexdigest()
        # Whoever predicts asks a parameter where and in which type to compute.
        self.place = nn.Parameter(torch.zeros(1), requires_grad=False)

    @classmethod
    def from_pretrained(cls, path: str | Path) -> OnnxModel:
        """Load a file that `unet-dist export --format onnx` wrote."""
        return cls(Path(path))

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits of pixels as they are stored."""
        return self._run(images, "logits")

    def _require_graph(self) -> None:
        """Compare the graph with what the file says of it. Raises: ValueError: they differ."""
        taken, given = self._session.get_inputs(), self._session.get_outputs()
        shapes = {value.name: value.shape for value in (*taken, *given)}
        channels, classes = (shapes.get(name, [])[place : place + 1] for name, place in (("pixels", 3), ("logits", 1)))
        if (
            [value.name for value in taken] != ["pixels"]
            or channels != [self.in_channels]
            or classes != [self.num_classes]
        ):
            raise ValueError(
                f"its graph has {shorten(str(shapes))}, not {self.in_channels} channels and {self.num_classes} classes"
            )

    def _run(self, images: Tensor, output: str) -> Tensor:
        kind = torch.uint8 if self.pixels.dtype == "uint8" else torch.float32  # which holds the others exactly
        pixels = images.permute(0, 2, 3, 1).to("cpu", kind).numpy()  # (N, H, W, C)
        (logits,) = self._session.run([output], {"pixels": np.ascontiguousarray(pixels)})
        margin = self.window_sizes.margin
        expected = (len(pixels), self.num_classes, *(side - 2 * margin for side in pixels.shape[1:3]))
        if output == "logits" and logits.shape != expected:
            raise CheckpointError(
                f"The ONNX file gives logits of shape {logits.shape} where its margin says {expected}. Export it again."
            )
        return torch.from_numpy(logits).to(images.device)

    def scaled_logits(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits of whole images at another size, interpolated once where the graph gives them before its own interpolation."""
        return scale_logits(self._run(images, self._finest), size)

    def config(self) -> None:
        """None: it cannot be built anew."""

    def extra_repr(self) -> str:
        """Show the settings in the network's printed form."""
        return f"{self.model_type}, sha256={self._digest}"


def open_session(path: Path) -> Any:
    """Open an ONNX file in onnxruntime, on the CPU, with torch's number of threads.

    Raises:
        CheckpointError: no such file, or it is damaged.
        ExtraError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ExtraError(f"{path} is an ONNX file, which needs onnxruntime: pip install 'unet_dist[onnx]'.") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    is_utf8 = str(path).encode("utf-8", "ignore").decode() == str(path)
    try:
        # onnxruntime takes paths in UTF-8 only, which names of other encodings are not, nor in the C locale those of UTF-8.
        given = str(path) if is_utf8 else path.read_bytes()
        return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class that it exports
        raise CheckpointError(f"{path} is not a whole ONNX file: {first_line(error)}. Export it again.") from error
