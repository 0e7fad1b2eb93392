"""The options of each command but train, whose own are in start_options.py. Knows nothing of torch or data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from unet_dist.config.decoding import Bytes, DecodingOptions
from unet_dist.config.meanings import meanings_of
from unet_dist.config.quantities import (
    EXPECTED_SHAPE,
    Bands,
    Beside,
    Finite,
    Range,
    Selecting,
    parse_bytes,
    parse_range,
    parse_shape,
)
from unet_dist.config.rules import (
    Also,
    AtLeast,
    Count,
    Main,
    Must,
    OptionsSection,
    PathWord,
    Positive,
    Reads,
    between,
    matching,
)
from unet_dist.config.sections import HINTS, KEYS, SECTIONS, Config, PrecisionWord
from unet_dist.config.start_options import DeviceWord
from unet_dist.config.values import read
from unet_dist.errors import ConfigError, suggest_key

SplitWord = Annotated[
    Literal["train", "validation", "test", "all"], Also("val", "validation"), Also("valid", "validation")
]
Trusted = Annotated[str, matching(r"[\w.]+(,[\w.]+)*", "packages separated by commas")]
Average = Annotated[str, matching(r"last:[1-9]\d{0,5}", "last: and a number of checkpoints, as last:5")]
NotNegativeInt = Annotated[int, AtLeast(0)]


@dataclass(frozen=True, kw_only=True)
class InferenceOptions(OptionsSection):
    """How windows are computed"""

    trust: Trusted | None = None
    """Packages, separated by commas, that RUN may import for networks and data sets of others. Nothing else from a folder is
    imported."""
    average: Average | None = None
    """Average the weights of a run's newest checkpoints, such as last:5. Train with keep_checkpoints 5 for that. Default: the best
    model."""
    window_batch: Count = 4
    """Windows that a process computes at once."""
    mixed_precision: PrecisionWord = "auto"
    """auto is bf16 where the device is fast at it, else no. The precision of accelerate launch is honoured."""
    expected_processes: Count | None = None
    """Number of processes to expect; the command refuses any other. Launch scripts set it."""
    collective_timeout_s: Positive = 1800.0
    """Longest time that a process waits for another, s. After it the command ends."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(InferenceOptions):
    """Evaluation of a run or a model folder"""

    tile_size: Main[Count | None] = None
    """Side of the input window, px. The result does not depend on it. Default: the run's, else 572 or its input size,
    whichever is larger."""
    blend: bool = False
    """Average overlapping windows with Gaussian weights, for networks without a finite halo. Not exact."""
    whole: bool = False
    """Compute every image in one window, scaled if the network was trained on scaled images. Default for a published
    checkpoint."""
    flip: Main[bool] = False
    """Average the probabilities of each image and its mirror image. Takes twice as long."""
    rotations: bool = False
    """Average over the eight rotations and mirror images, for pictures without an up (microscopy). Takes eight times as long."""
    split: Main[SplitWord | None] = None
    """Part of the data set to evaluate. Default: test, or validation where the data have no test split."""
    data_path: Main[PathWord | None] = None
    """Evaluate on another data set than the run's own."""
    ignore_index: NotNegativeInt | None = None
    """Class id to ignore. Default: the model's."""
    label_map: dict[str, int] | None = None
    """Colour or id of a mask -> class id. Default: the run's."""
    names: PathWord | None = None
    """File of the data's class names: id2label.json, or one name per line. Default: the data's own, else the network's."""
    cache_path: PathWord | None = None
    """Folder of the decoded caches. Default: the run's."""
    output_path: Main[PathWord | None] = None
    """Folder for evaluation-SPLIT.json. Default: the run's."""
    seed: NotNegativeInt | None = None
    """Seed of the split of another data set. Default: the run's."""
    metrics: Main[str | None] = None
    """More scores, separated by commas: mean_dice, or an import path such as my_package.metrics:kappa. Default:
    the run's."""
    border_class: NotNegativeInt | None = None
    """Class between objects, such as cell membranes. Adds V_rand and V_info of the ISBI 2012 challenge (foreground-restricted),
    which score how well objects are separated, each at its best border probability of 0.1 to 0.9."""
    pictures: NotNegativeInt = 4
    """Number of images to draw with label and prediction, spread over the split, 0 or more. The report also gets as many of the
    worst."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(not (self.blend and self.whole), "whole", True, "blend or whole, not both")
        self.require(
            not (self.tile_size and self.whole), "tile_size", self.tile_size, "none with whole, as there are no tiles"
        )


@dataclass(frozen=True, kw_only=True)
class PredictOptions(InferenceOptions, DecodingOptions):
    """Prediction of images"""

    tile_size: Main[Count | Literal["auto"] | None] = None
    """Side of the input window, px. auto takes the side with the least predicted time that memory allows. The result does not
    depend on it, unless blended. Default: the run's, else 572 or its input size, whichever is larger."""
    memory: Bytes | None = None
    """With tile_size auto: memory that a process may use, such as 6GiB. Default: 80 % of the free memory."""
    output: Main[PathWord] = "predictions"
    """Folder for NAME.png (label map) and NAME_overlay.png."""
    format: Main[Literal["auto", "png", "tiff", "zarr"]] = "auto"
    """Format of the label maps. auto keeps TIFF and Zarr; for other images it takes PNG up to 67 megapixels, TIFF beyond."""
    overlay: Main[bool] = True
    """Write overlays of images up to 67 megapixels. A class named background, or class 0 where none has a name, stays as it
    is."""
    also: Beside | None = None
    """For each label map: qgis, a style NAME.qml; geojson, its regions as NAME.geojson for QuPath (extra geo); or qgis,geojson."""
    probabilities: Main[Literal["none", "uint8", "float16"]] = "none"
    """Write NAME_probabilities, one plane per class. uint8 is round(255 p)."""
    confidence: bool = False
    """Write NAME_confidence: the winning class's probability, round(255 p)."""
    flip: Main[bool] = False
    """Average the probabilities of each image and its mirror image. Takes twice as long."""
    rotations: bool = False
    """Average over the eight rotations and mirror images, for pictures without an up (microscopy). Takes eight times as long."""
    blend: bool = False
    """Average overlapping windows with Gaussian weights, for networks without a finite halo. Not exact: the result depends on
    the tile size."""
    whole: Main[bool] = False
    """Compute every image in one window, scaled if the network was trained so. Memory grows with images that are not scaled."""
    skip_background: bool = False
    """Skip pixels whose whole field of view is bright background (235 or more in every channel). They get no class."""
    level: NotNegativeInt | None = None
    """Level of an image pyramid, 0 (the default) is the finest."""
    mpp: Annotated[float, Must(lambda mpp: mpp > 0, "more than 0")] | None = None
    """Micrometres per pixel, instead of a level: takes the level of this size, within 10 %."""
    value_range: Range | None = None
    """LOW,HIGH: convert images to 8 bits, for a network trained so. LOW becomes black, HIGH white (12-bit data: 0,4095)."""
    bands: Bands | None = None
    """Bands of these images to take, from 1, in this order. Default: those of the training."""
    nodata: Finite | None = None
    """Value of pixels without data, which become 255, no class. Default: that of the training, or what each file says."""
    select: Selecting | None = None
    """Images of stacks to predict: axes (t, z ...) with a place from 1, such as t=1,z=5 or z=5-7. Default: all of them."""
    max_pixels: Annotated[int, AtLeast(1, 2**63 - 1)] = 500_000_000
    """Refuse an ordinary image (PNG, JPEG, WebP) of more pixels, since it is decoded whole."""
    strict: bool = False
    """Stop at the first image that cannot be read. Default: name it, predict the others, end with exit code 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.memory is None or self.tile_size == "auto", "memory", self.memory, "--tile_size auto with it")
        self.require(self.mpp is None or self.level is None, "level", self.level, "level or mpp, not both")
        self.require(not (self.blend and self.whole), "whole", True, "blend or whole, not both")
        self.require(
            not (self.tile_size and self.whole), "tile_size", self.tile_size, "none with whole, as there are no tiles"
        )
        both = self.blend and self.skip_background
        self.require(
            not both, "skip_background", True, "no blend with it, as it takes a finite halo to know the seen pixels"
        )

    def value_limits(self) -> tuple[float, float] | None:
        """The two numbers of value_range."""
        return None if self.value_range is None else parse_range(self.value_range)

    def memory_bytes(self) -> int | None:
        """The number of bytes of memory."""
        return None if self.memory is None else parse_bytes(self.memory)


@dataclass(frozen=True, kw_only=True)
class ReportOptions(OptionsSection):
    """The report; reads the folders of runs, also unfinished ones, and computes nothing"""

    split: SplitWord | None = None
    """Evaluation to show. Default: the first of test, validation, all and train that exists."""
    output: PathWord | None = None
    """File to write. Default: report.html in the run's folder; for several runs, in the current folder."""
    figures: bool = True
    """Also draw the charts as PNG files for papers, in figures/ beside the page."""
    pictures: NotNegativeInt = 12
    """Largest number of images to show, 0 or more."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions(OptionsSection):
    """The export"""

    trust: Trusted | None = None
    """Packages, separated by commas, that RUN may import for networks and data sets of others. Nothing else from a folder is
    imported."""
    format: Main[Literal["onnx", "huggingface"]] = "huggingface"
    """huggingface writes a folder with weights and a model card. onnx writes one file for other runtimes and compares it with the
    original on images."""
    output: Main[PathWord | None] = None
    """The .onnx file or the folder. Default: model.onnx or huggingface/ in the run's folder."""
    license: (
        Annotated[str, matching(r"[a-z0-9][a-z0-9.-]*", "a name as the hub has it, such as mit, apache-2.0 or other")]
        | None
    ) = None
    """Licence of the weights as the hub names it, such as mit or cc-by-4.0. Default: the card says that none was stated."""
    check_images: Count = 20
    """Number of images of the run's test split (or street scenes) on which an ONNX file must give the original's labels, 1 or
    more."""
    sides: Annotated[str, Reads(parse_shape, EXPECTED_SHAPE, "HxW")] | None = None
    """Fixed height x width of the pictures an ONNX file takes, one at a time, for runtimes without dynamic shapes. Default: any
    sides the network takes."""
    padded: Main[bool] = False
    """Let the ONNX file mirror pictures at their borders: it then takes any size and returns logits of the same size."""
    example: PathWord | None = None
    """Image for the card's example; it becomes part of the folder. Default: a drawn scene if trained on those, else none."""
    push: Main[Annotated[str, matching(r"[\w.-]+/[\w.-]+", "an id such as someone/some-model")] | None] = None
    """Send the folder to the hub under this id, such as someone/some-model."""
    private: bool = False
    """With push: make the new repository private."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(not self.private or self.push is not None, "private", True, "--push REPO_ID with it")
        if self.format == "huggingface":
            self.require(self.sides is None, "sides", self.sides, "--format onnx with it")
            self.require(not self.padded, "padded", True, "--format onnx with it")
        if self.format == "onnx":
            for key in ("example", "push"):
                self.require(getattr(self, key) is None, key, getattr(self, key), "--format huggingface with it")


@dataclass(frozen=True, kw_only=True)
class DemoOptions(DecodingOptions):
    """A page that labels the images you drop on it"""

    trust: Trusted | None = None
    """Packages, separated by commas, that RUN may import for networks and data sets of others. Nothing else from a folder is
    imported."""
    tile_size: Count | None = None
    """Side of the input window, px. Default: the run's."""
    port: Main[Annotated[int, between(1, 65535)]] = 7860
    """Port of the page."""
    host: Main[str] = "127.0.0.1"
    """Address to listen on. The default is open to this machine only, 0.0.0.0 to every machine that reaches this one."""
    max_upload: Bytes = "1GiB"
    """Largest file that the page takes, such as 200MiB."""
    seconds_per_image: Positive = 600.0
    """Longest time for one image, s, so that others get their turn."""


@dataclass(frozen=True, kw_only=True)
class PlanOptions(OptionsSection):
    """The plan; no device is needed"""

    memory: Main[Bytes | None] = None
    """Memory of a device, such as 24GiB. The plan then shows what fits, and what to change if the run does not."""
    image_size: Main[Annotated[str, Reads(parse_shape, EXPECTED_SHAPE, "HxW")] | None] = None
    """Height x width of the images, px. Default: that of the scenes or the largest of the data set, else 1080x1920."""
    device: Main[Literal["cuda", "cpu"]] = "cuda"
    """Kind of device to plan for."""

    def memory_bytes(self) -> int | None:
        """The number of bytes of memory."""
        return None if self.memory is None else parse_bytes(self.memory)

    def image_shape(self) -> tuple[int, int] | None:
        """Height and width of the images."""
        return None if self.image_size is None else parse_shape(self.image_size)


@dataclass(frozen=True, kw_only=True)
class BenchOptions(OptionsSection):
    """The measurement"""

    bench_rounds: Count = 5
    """Largest number of rounds. Each round measures everything once, in turn; results are the median, lowest and highest."""
    bench_steps: Count = 20
    """Largest number of training steps per round, for the bare step and for the real loop."""
    bench_seconds: Positive = 60.0
    """Seconds for the rounds of each setting, above 0. They limit rounds and steps. Every measurement is made at least
    once."""
    bench_predict: bool = True
    """Also predict an image in each round, and run the bare network on its windows. Not for the baseline, which cannot
    predict."""
    compare: Main[str | None] = None
    """Settings to measure in turn: KEY=VALUE,VALUE,... for any key of the config (micro_batch_size=1,2,4), or baseline: the
    usual training loop for this task."""

    def __post_init__(self) -> None:
        super().__post_init__()
        varied, values = self.compared()
        self.require(varied is None or len(values) > 1, "compare", self.compare, "KEY=VALUE,VALUE,... or baseline")
        self.require(len(set(values)) == len(values), "compare", self.compare, "values that differ")

    def compared(self) -> tuple[str | None, list[str]]:
        """The key that compare varies, and its values as words; (None, []) where it varies none."""
        if self.compare in (None, "baseline"):
            return None, []
        assert self.compare is not None
        key, _, values = self.compare.partition("=")
        return key.strip().lstrip("-").replace("-", "_"), [word.strip() for word in values.split(",") if word.strip()]

    def settings(self, config: Config) -> dict[str, Config]:
        """The config of each setting that compare names, by its name.

        Raises:
            ConfigError: not a key of the config, or not a value of that key.
        """
        key, words = self.compared()
        if key is None:
            return {}
        if key not in HINTS:
            raise ConfigError(f"compare: unknown key {key!r}. {suggest_key(key, HINTS)}")
        meaning = meanings_of(SECTIONS[KEYS[key]])[key]
        values = {word: read(key, HINTS[key], word, meaning, is_word=True) for word in words}
        return {f"{key} {word}": config.replace(**{key: value}) for word, value in values.items()}


@dataclass(frozen=True, kw_only=True)
class InitOptions(OptionsSection):
    """The output"""

    output: PathWord = "."
    """Folder to write into."""
    overwrite: bool = False
    """Replace existing files."""


@dataclass(frozen=True, kw_only=True)
class DoctorOptions(OptionsSection):
    """The check of a GPU"""

    gpu: bool = False
    """Also measure the GPU: rates, training steps, memory, repeatability. Writes check.json and check.md."""
    minutes: Positive = 8.0
    """Minutes for the whole check. The least important stages are skipped first."""
    output: PathWord = "gpu-check"
    """Folder for check.json and check.md."""
    device: DeviceWord = "auto"
    """The GPU to check: cuda, or cuda:1 for the second visible one. cpu, with smoke, tries the check itself."""
    smoke: bool = False
    """Use tiny sizes to try the check itself, also on a CPU. The figures mean nothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        given = {key: getattr(self, key) for key in ("minutes", "output", "device", "smoke")}
        for key, value in given.items():
            default = type(self).__dataclass_fields__[key].default
            self.require(self.gpu or value == default, key, value, "none without gpu, as nothing is measured")
