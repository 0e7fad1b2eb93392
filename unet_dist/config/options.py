"""What the user may say to the commands that work on a finished run.

Owns the options of every command but train and prepare, whose keys are in config.py; plan takes those too. Knows nothing of
torch or data.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from unet_dist.config.sections import Precision
from unet_dist.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class InferenceOptions:
    """How windows are computed"""

    window_batch: int = 4
    """Windows that a process computes at once."""
    mixed_precision: Precision = "auto"
    """auto is bf16 where the device is fast at it, else no; what accelerate launch says is honoured."""
    expected_processes: int | None = None
    """Refuse to start on another number of processes; a launch script states it."""
    collective_timeout_s: float = 1800.0
    """Seconds after which a process that waits for another ends the command."""

    def __post_init__(self) -> None:
        for key in ("tile_size", "window_batch", "expected_processes"):
            value = getattr(self, key, None)
            if isinstance(value, int) and value < 1:
                raise ConfigError(f"{key}: got {value}, expected 1 or more. Change --{key}.")


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(InferenceOptions):
    """Evaluation of a run or a model folder"""

    tile_size: int | None = None
    """Side of the input window, px; the result does not depend on it. By default the run's, else 572 or its input size,
    whichever is more."""
    blend: bool = False
    """Overlapping windows, averaged with Gaussian weights: so are networks without a finite halo evaluated. Not exact."""
    whole: bool = False
    """Every image in one window, scaled first where the network was trained so: of a published checkpoint, the default."""
    split: Literal["train", "validation", "test", "all"] = "test"
    """Part of the data set to evaluate on."""
    data_path: str | None = None
    """Another data set than the run's own."""
    ignore_index: int | None = None
    """Class id that counts nowhere; by default the model's."""
    label_map: dict[str, int] | None = None
    """Colour or id of a mask -> class id; by default the run's."""
    cache_path: str | None = None
    """Folder of the decoded caches; by default the run's."""
    output_path: str | None = None
    """Folder for evaluation-SPLIT.json; by default the run's."""
    seed: int | None = None
    """Seed of the split of another data set; by default the run's."""
    border_class: int | None = None
    """Class between objects, such as cell membranes: also scores how well the objects are told apart, by the foreground-restricted
    V_rand and V_info of the ISBI 2012 challenge, each at the border probability (0.1 to 0.9) that is best for it."""
    pictures: int = 4
    """Images spread over the split whose label and prediction are drawn side by side, and as many of the worst for the report;
    0 or more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.pictures >= 0, "pictures", self.pictures, "0 or more")
        _require(not (self.blend and self.whole), "whole", True, "blend or whole, not both")
        _require(
            not (self.tile_size and self.whole), "tile_size", self.tile_size, "none with whole, as there are no tiles"
        )


@dataclass(frozen=True, kw_only=True)
class PredictOptions(InferenceOptions):
    """Prediction of images"""

    tile_size: int | Literal["auto"] | None = None
    """Side of the input window, px, or auto: the one of least predicted time that memory allows. The result does not depend on
    it, unless blended. By default the run's, else 572 or its input size, whichever is more."""
    memory: str | None = None
    """With tile_size auto: memory a process may use for it, such as 6GiB; by default 80 % of what is free."""
    output: str = "predictions"
    """Folder for NAME.png (label map) and NAME_overlay.png."""
    format: Literal["auto", "png", "tiff", "zarr"] = "auto"
    """Of the label maps; auto keeps TIFF and Zarr, and takes PNG for others up to 67 megapixels, TIFF beyond."""
    overlay: bool = True
    """Write overlays too, of images up to 67 megapixels."""
    probabilities: Literal["none", "uint8", "float16"] = "none"
    """Write NAME_probabilities, a plane a class; uint8 is round(255 p)."""
    confidence: bool = False
    """Write NAME_confidence: the winning class's probability, round(255 p)."""
    flip: bool = False
    """Average the probabilities of each image and of its mirror image; takes twice as long."""
    blend: bool = False
    """Overlapping windows, averaged with Gaussian weights: for networks without a finite halo. Not exact: the result depends on
    the tile size."""
    whole: bool = False
    """Every image in one window, scaled first where the network was trained so; memory grows with what is not scaled."""
    skip_background: bool = False
    """Leave out the pixels from which the network sees nothing but bright background (235 or more in every channel): they become
    255, no class."""
    level: int | None = None
    """Level of an image pyramid, 0 the finest (the default)."""
    mpp: float | None = None
    """Micrometres per pixel, instead of a level: takes the level of this size, within 10 %."""
    value_range: str | None = None
    """LOW,HIGH: the values that become black and white, for images of more than 8 bits (12-bit data: 0,4095)."""
    max_pixels: int = 500_000_000
    """Refuse an ordinary image (PNG, JPEG, WebP) of more pixels: it is decoded whole."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.memory is None or self.tile_size == "auto", "memory", self.memory, "--tile_size auto with it")
        _require(self.mpp is None or self.level is None, "level", self.level, "level or mpp, not both")
        _require(self.mpp is None or self.mpp > 0, "mpp", self.mpp, "more than 0")
        _require(self.level is None or self.level >= 0, "level", self.level, "0 or more")
        _require(self.max_pixels >= 1, "max_pixels", self.max_pixels, "1 or more")
        _require(not (self.blend and self.whole), "whole", True, "blend or whole, not both")
        _require(
            not (self.tile_size and self.whole), "tile_size", self.tile_size, "none with whole, as there are no tiles"
        )
        both = self.blend and self.skip_background
        _require(not both, "skip_background", True, "no blend with it, as it takes a finite halo to tell what is seen")
        self.value_limits()
        self.memory_bytes()

    def value_limits(self) -> tuple[float, float] | None:
        """The two numbers of value_range."""
        if self.value_range is None:
            return None
        numbers = _numbers(self.value_range)
        valid = len(numbers) == 2 and numbers[0] < numbers[1]
        _require(valid, "value_range", self.value_range, "two numbers, the smaller first, such as 0,4095")
        return numbers[0], numbers[1]

    def memory_bytes(self) -> int | None:
        """The number of bytes of memory."""
        return None if self.memory is None else parse_bytes("memory", self.memory)


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """The report; works on what is in the folders, also of a run that is still going on, and computes nothing anew"""

    split: Literal["train", "validation", "test", "all"] | None = None
    """Whose evaluation is shown; by default test, else validation, all or train, whichever is there first."""
    output: str | None = None
    """File to write; by default report.html in the run's folder, of several runs in the current one."""
    figures: bool = True
    """Draw the charts for papers too, as PNG files in figures/ beside the page."""
    pictures: int = 12
    """Images shown at most, of those that evaluate kept; 0 or more."""

    def __post_init__(self) -> None:
        _require(self.pictures >= 0, "pictures", self.pictures, "0 or more")


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """A model in a form that others load"""

    format: Literal["onnx", "huggingface"] | None = None
    """onnx is one file for other runtimes, compared with the original on images; huggingface a folder with a model card."""
    output: str | None = None
    """The .onnx file or the folder; by default model.onnx or huggingface/ in the run's folder."""
    license: str | None = None
    """Licence of the weights as the hub names it, such as mit or cc-by-4.0; by default the card says that none was stated."""
    check_images: int = 20
    """Images of the run's test split (or street scenes) on which an ONNX file must give the labels of the original, 1 or more."""
    example: str | None = None
    """Image for the card's example, which becomes part of the folder; by default a procedural street scene."""
    push: str | None = None
    """Send the folder to the hub under this id, such as someone/some-model."""
    private: bool = False
    """With push: a repository that is made is private."""

    def __post_init__(self) -> None:
        _require(self.format is not None, "format", "none", "onnx or huggingface")
        _require(self.check_images >= 1, "check_images", self.check_images, "1 or more")
        is_name = self.license is None or re.fullmatch(r"[a-z0-9][a-z0-9.-]*", self.license) is not None
        _require(is_name, "license", self.license, "a name as the hub has it, such as mit, apache-2.0 or other")
        is_id = self.push is None or re.fullmatch(r"[\w.-]+/[\w.-]+", self.push) is not None
        _require(is_id, "push", self.push, "an id such as someone/some-model")
        _require(not self.private or self.push is not None, "private", True, "--push REPO_ID with it")
        if self.format == "onnx":
            for key in ("example", "push"):
                _require(getattr(self, key) is None, key, getattr(self, key), "--format huggingface with it")


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """A page that labels the images one drops on it"""

    tile_size: int | None = None
    """Side of the input window, px; by default the run's."""
    port: int = 7860
    """Port of the page."""
    host: str = "127.0.0.1"
    """Address to listen on; the default is reached from this machine only, 0.0.0.0 from all that reach it."""

    def __post_init__(self) -> None:
        _require(1 <= self.port <= 65535, "port", self.port, "1 to 65535")


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """The plan; nothing is read and no device is needed"""

    memory: str | None = None
    """Memory of a device, such as 24GiB: says what fits into it, and what to change where the run does not."""
    image_size: str | None = None
    """Height x width of the images, px; by default that of the scenes or of the decoded cache, else 1080x1920."""
    device: Literal["cuda", "cpu"] = "cuda"
    """Kind of device that the run is planned for."""

    def __post_init__(self) -> None:
        if self.memory is not None:
            parse_bytes("memory", self.memory)
        self.image_shape()

    def memory_bytes(self) -> int | None:
        """The number of bytes of memory."""
        return None if self.memory is None else parse_bytes("memory", self.memory)

    def image_shape(self) -> tuple[int, int] | None:
        """Height and width of the images."""
        if self.image_size is None:
            return None
        match = re.fullmatch(r"(\d+)x(\d+)", self.image_size.strip().lower())
        is_size = match is not None and int(match[1]) > 0 and int(match[2]) > 0
        _require(is_size, "image_size", self.image_size, "height x width in px such as 1080x1920")
        assert match is not None
        return int(match[1]), int(match[2])


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """The measurement"""

    bench_rounds: int = 5
    """Rounds, at most: in each everything is measured once, in turn. Median, lowest and highest are over the rounds."""
    bench_steps: int = 20
    """Training steps of a round, at most, of each the bare step and the real loop."""
    bench_seconds: float = 60.0
    """Seconds for the rounds of each setting, above 0; they decide how many rounds and steps there are. Every measurement is
    made once, whatever it takes."""
    bench_predict: bool = True
    """Predict an image in each round, too, and the bare network on its windows; not where the loop that is usually written is
    compared, which has no prediction."""
    compare: str | None = None
    """Settings to measure in turn: KEY=VALUE,VALUE,... of any key of the config (micro_batch_size=1,2,4), or baseline: the loop
    that is usually written for this task."""

    def __post_init__(self) -> None:
        for key in ("bench_rounds", "bench_steps"):
            _require(getattr(self, key) >= 1, key, getattr(self, key), "1 or more")
        _require(0 < self.bench_seconds < float("inf"), "bench_seconds", self.bench_seconds, "a finite number above 0")
        varied, values = self.compared()
        _require(varied is None or len(values) > 1, "compare", self.compare, "KEY=VALUE,VALUE,... or baseline")
        _require(len(set(values)) == len(values), "compare", self.compare, "values that differ")

    def compared(self) -> tuple[str | None, list[str]]:
        """The key that compare varies, and its values as words; (None, []) where it varies none."""
        if self.compare in (None, "baseline"):
            return None, []
        assert self.compare is not None
        key, _, values = self.compare.partition("=")
        return key.strip().lstrip("-").replace("-", "_"), [word.strip() for word in values.split(",") if word.strip()]


def parse_bytes(key: str, text: str) -> int:
    """Read an amount of memory such as 24GiB.

    Raises:
        ConfigError: not a number above 0 with a unit; names the key.
    """
    match = re.fullmatch(r"\s*([\d.]+)\s*([KMGT]i?B?|B?)\s*", text)
    numbers = _numbers(match[1]) if match else []
    _require(bool(match and numbers and numbers[0] > 0), key, text, "a number and a unit, such as 6GiB or 900MiB")
    assert match is not None
    unit = match[2]
    base = 1024 if "i" in unit else 1000
    return int(numbers[0] * base ** (" KMGT".index(unit[0]) if unit and unit != "B" else 0))


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in re.split(r"[,:\s]+", text.strip("[]() "))]
    except ValueError:
        return []


def _require(is_valid: bool, key: str, got: object, expected: str) -> None:
    if not is_valid:
        raise ConfigError(f"{key}: got {got}, expected {expected}. Change --{key}.")
