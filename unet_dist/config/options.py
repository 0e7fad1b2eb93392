"""What the user may say to the commands that work on a finished run.

Owns the options of every command but train and prepare, whose keys are in config.py; plan takes those too. Knows nothing of
torch or data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from unet_dist.config.meanings import meanings_of
from unet_dist.config.quantities import (
    EXPECTED_BYTES,
    EXPECTED_RANGE,
    EXPECTED_SHAPE,
    EXPECTED_TIME,
    parse_bytes,
    parse_range,
    parse_shape,
    parse_time,
)
from unet_dist.config.rules import (
    Also,
    AtLeast,
    Count,
    Must,
    OptionsSection,
    PathWord,
    Positive,
    Reads,
    between,
    matching,
)
from unet_dist.config.sections import HINTS, KEYS, SECTIONS, Config, PrecisionWord
from unet_dist.config.values import read
from unet_dist.errors import ConfigError, suggest_key

SplitWord = Annotated[
    Literal["train", "validation", "test", "all"], Also("val", "validation"), Also("valid", "validation")
]
Trusted = Annotated[str, matching(r"[\w.]+(,[\w.]+)*", "packages separated by commas")]
Bytes = Annotated[str, Reads(parse_bytes, EXPECTED_BYTES, "SIZE")]
NotNegativeInt = Annotated[int, AtLeast(0)]


@dataclass(frozen=True, kw_only=True)
class InferenceOptions(OptionsSection):
    """How windows are computed"""

    trust: Trusted | None = None
    """Packages, separated by commas, whose code RUN may import: networks and data sets that are not ours. Nothing else of a
    folder is ever imported."""
    window_batch: Count = 4
    """Windows that a process computes at once."""
    mixed_precision: PrecisionWord = "auto"
    """auto is bf16 where the device is fast at it, else no; what accelerate launch says is honoured."""
    expected_processes: Count | None = None
    """Refuse to start on another number of processes; a launch script states it."""
    collective_timeout_s: Positive = 1800.0
    """Seconds after which a process that waits for another ends the command."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(InferenceOptions):
    """Evaluation of a run or a model folder"""

    tile_size: Count | None = None
    """Side of the input window, px; the result does not depend on it. By default the run's, else 572 or its input size,
    whichever is more."""
    blend: bool = False
    """Overlapping windows, averaged with Gaussian weights: so are networks without a finite halo evaluated. Not exact."""
    whole: bool = False
    """Every image in one window, scaled first where the network was trained so: of a published checkpoint, the default."""
    flip: bool = False
    """Average the probabilities of each image and of its mirror image; takes twice as long."""
    rotations: bool = False
    """Average over the eight rotations and mirror images, for pictures without an up, such as microscopy; takes eight times as
    long."""
    split: SplitWord = "test"
    """Part of the data set to evaluate on."""
    data_path: PathWord | None = None
    """Another data set than the run's own."""
    ignore_index: NotNegativeInt | None = None
    """Class id that counts nowhere; by default the model's."""
    label_map: dict[str, int] | None = None
    """Colour or id of a mask -> class id; by default the run's."""
    cache_path: PathWord | None = None
    """Folder of the decoded caches; by default the run's."""
    output_path: PathWord | None = None
    """Folder for evaluation-SPLIT.json; by default the run's."""
    seed: NotNegativeInt | None = None
    """Seed of the split of another data set; by default the run's."""
    metrics: str | None = None
    """Other scores of the confusion matrix, separated by commas: mean_dice, or an import path such as my_package.metrics:kappa."""
    border_class: NotNegativeInt | None = None
    """Class between objects, such as cell membranes: also scores how well the objects are told apart, by the foreground-restricted
    V_rand and V_info of the ISBI 2012 challenge, each at the border probability (0.1 to 0.9) that is best for it."""
    pictures: NotNegativeInt = 4
    """Images spread over the split whose label and prediction are drawn side by side, and as many of the worst for the report;
    0 or more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(not (self.blend and self.whole), "whole", True, "blend or whole, not both")
        self.require(
            not (self.tile_size and self.whole), "tile_size", self.tile_size, "none with whole, as there are no tiles"
        )


@dataclass(frozen=True, kw_only=True)
class PredictOptions(InferenceOptions):
    """Prediction of images"""

    tile_size: Count | Literal["auto"] | None = None
    """Side of the input window, px, or auto: the one of least predicted time that memory allows. The result does not depend on
    it, unless blended. By default the run's, else 572 or its input size, whichever is more."""
    memory: Bytes | None = None
    """With tile_size auto: memory a process may use for it, such as 6GiB; by default 80 % of what is free."""
    output: PathWord = "predictions"
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
    rotations: bool = False
    """Average over the eight rotations and mirror images, for pictures without an up, such as microscopy; takes eight times as
    long."""
    blend: bool = False
    """Overlapping windows, averaged with Gaussian weights: for networks without a finite halo. Not exact: the result depends on
    the tile size."""
    whole: bool = False
    """Every image in one window, scaled first where the network was trained so; memory grows with what is not scaled."""
    skip_background: bool = False
    """Leave out the pixels from which the network sees nothing but bright background (235 or more in every channel): they become
    255, no class."""
    level: NotNegativeInt | None = None
    """Level of an image pyramid, 0 the finest (the default)."""
    mpp: Annotated[float, Must(lambda mpp: mpp > 0, "more than 0")] | None = None
    """Micrometres per pixel, instead of a level: takes the level of this size, within 10 %."""
    value_range: Annotated[str, Reads(parse_range, EXPECTED_RANGE, "LOW,HIGH")] | None = None
    """LOW,HIGH: the values that become black and white, for images of more than 8 bits (12-bit data: 0,4095)."""
    max_pixels: Annotated[int, AtLeast(1, 2**63 - 1)] = 500_000_000
    """Refuse an ordinary image (PNG, JPEG, WebP) of more pixels: it is decoded whole."""
    strict: bool = False
    """Stop at the first image that cannot be read. By default the others are predicted, it is named, and the exit code is 1."""

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
            not both, "skip_background", True, "no blend with it, as it takes a finite halo to tell what is seen"
        )

    def value_limits(self) -> tuple[float, float] | None:
        """The two numbers of value_range."""
        return None if self.value_range is None else parse_range(self.value_range)

    def memory_bytes(self) -> int | None:
        """The number of bytes of memory."""
        return None if self.memory is None else parse_bytes(self.memory)


@dataclass(frozen=True, kw_only=True)
class ReportOptions(OptionsSection):
    """The report; works on what is in the folders, also of a run that is still going on, and computes nothing anew"""

    split: SplitWord | None = None
    """Whose evaluation is shown; by default test, else validation, all or train, whichever is there first."""
    output: PathWord | None = None
    """File to write; by default report.html in the run's folder, of several runs in the current one."""
    figures: bool = True
    """Draw the charts for papers too, as PNG files in figures/ beside the page."""
    pictures: NotNegativeInt = 12
    """Images shown at most, of those that evaluate kept; 0 or more."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions(OptionsSection):
    """A model in a form that others load"""

    trust: Trusted | None = None
    """Packages, separated by commas, whose code RUN may import: networks and data sets that are not ours. Nothing else of a
    folder is ever imported."""
    format: Literal["onnx", "huggingface"] | None = None
    """onnx is one file for other runtimes, compared with the original on images; huggingface a folder with a model card."""
    output: PathWord | None = None
    """The .onnx file or the folder; by default model.onnx or huggingface/ in the run's folder."""
    license: (
        Annotated[str, matching(r"[a-z0-9][a-z0-9.-]*", "a name as the hub has it, such as mit, apache-2.0 or other")]
        | None
    ) = None
    """Licence of the weights as the hub names it, such as mit or cc-by-4.0; by default the card says that none was stated."""
    check_images: Count = 20
    """Images of the run's test split (or street scenes) on which an ONNX file must give the labels of the original, 1 or more."""
    example: PathWord | None = None
    """Image for the card's example, which becomes part of the folder; by default a procedural street scene."""
    push: Annotated[str, matching(r"[\w.-]+/[\w.-]+", "an id such as someone/some-model")] | None = None
    """Send the folder to the hub under this id, such as someone/some-model."""
    private: bool = False
    """With push: a repository that is made is private."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.format is not None, "format", "none", "onnx or huggingface")
        self.require(not self.private or self.push is not None, "private", True, "--push REPO_ID with it")
        if self.format == "onnx":
            for key in ("example", "push"):
                self.require(getattr(self, key) is None, key, getattr(self, key), "--format huggingface with it")


@dataclass(frozen=True, kw_only=True)
class DemoOptions(OptionsSection):
    """A page that labels the images one drops on it"""

    trust: Trusted | None = None
    """Packages, separated by commas, whose code RUN may import: networks and data sets that are not ours. Nothing else of a
    folder is ever imported."""
    tile_size: Count | None = None
    """Side of the input window, px; by default the run's."""
    port: Annotated[int, between(1, 65535)] = 7860
    """Port of the page."""
    host: str = "127.0.0.1"
    """Address to listen on; the default is reached from this machine only, 0.0.0.0 from all that reach it."""


@dataclass(frozen=True, kw_only=True)
class PlanOptions(OptionsSection):
    """The plan; nothing is read and no device is needed"""

    memory: Bytes | None = None
    """Memory of a device, such as 24GiB: says what fits into it, and what to change where the run does not."""
    image_size: Annotated[str, Reads(parse_shape, EXPECTED_SHAPE, "HxW")] | None = None
    """Height x width of the images, px; by default that of the scenes or of the decoded cache, else 1080x1920."""
    device: Literal["cuda", "cpu"] = "cuda"
    """Kind of device that the run is planned for."""

    def memory_bytes(self) -> int | None:
        """The number of bytes of memory."""
        return None if self.memory is None else parse_bytes(self.memory)

    def image_shape(self) -> tuple[int, int] | None:
        """Height and width of the images."""
        return None if self.image_size is None else parse_shape(self.image_size)


@dataclass(frozen=True, kw_only=True)
class ConfigureOptions(OptionsSection):
    """The choice of a config"""

    memory: Bytes | None = None
    """Memory that a process may use, such as 24GiB; by default 80 % of what is free on this device."""
    time: Annotated[str, Reads(parse_time, EXPECTED_TIME, "TIME")] = "1h"
    """Wall time that the run is to fill on one process, such as 30min or 2h."""
    ignore_index: NotNegativeInt | None = None
    """Class id that counts nowhere; by default none."""
    label_map: dict[str, int] | None = None
    """Colour or id of a mask -> class id."""
    group_by: str | None = None
    """Samples that stay on one side of a split, as train takes it: a regular expression, or sequence."""
    cache_path: PathWord | None = None
    """Folder of the decoded caches; by default unet_dist in the user's cache folder."""
    output_path: PathWord | None = None
    """Folder of the run, written into the config; by default output."""

    def memory_bytes(self) -> int | None:
        """The number of bytes of memory."""
        return None if self.memory is None else parse_bytes(self.memory)

    def seconds(self) -> float:
        """The time in seconds."""
        return parse_time(self.time)


@dataclass(frozen=True, kw_only=True)
class BenchOptions(OptionsSection):
    """The measurement"""

    bench_rounds: Count = 5
    """Rounds, at most: in each everything is measured once, in turn. Median, lowest and highest are over the rounds."""
    bench_steps: Count = 20
    """Training steps of a round, at most, of each the bare step and the real loop."""
    bench_seconds: Positive = 60.0
    """Seconds for the rounds of each setting, above 0; they decide how many rounds and steps there are. Every measurement is
    made once, whatever it takes."""
    bench_predict: bool = True
    """Predict an image in each round, too, and the bare network on its windows; not where the loop that is usually written is
    compared, which has no prediction."""
    compare: str | None = None
    """Settings to measure in turn: KEY=VALUE,VALUE,... of any key of the config (micro_batch_size=1,2,4), or baseline: the loop
    that is usually written for this task."""

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
class TrainOptions(OptionsSection):
    """The start of a training"""

    dry_run: bool = False
    """Check the config and the data, write the decoded cache, print what the run needs, and stop."""


@dataclass(frozen=True, kw_only=True)
class ConfigOptions(OptionsSection):
    """The config"""

    print_config: bool = False
    """Print every key with its value, as YAML that a run takes, and stop."""


DeviceWord = Annotated[str, matching(r"auto|cpu|cuda(:[0-9]{1,3})?", "auto, cpu, cuda or cuda:0")]


@dataclass(frozen=True, kw_only=True)
class StartOptions(OptionsSection):
    """The processes"""

    processes: Count | None = None
    """Processes to start on this machine, one for each GPU that is used; without it one, or those of a launcher."""
    device: DeviceWord = "auto"
    """auto is a GPU where there is one, else the CPU; cuda refuses to go without; cuda:1 is the second GPU that is visible."""


@dataclass(frozen=True, kw_only=True)
class InitOptions(OptionsSection):
    """What is written"""

    output: PathWord = "."
    """Folder to write into."""
    overwrite: bool = False
    """Replace files that are there."""


@dataclass(frozen=True, kw_only=True)
class DoctorOptions(OptionsSection):
    """The check of a GPU"""

    gpu: bool = False
    """Measure the GPU, too: rates, training steps, memory, repeatability; writes check.json and check.md."""
    minutes: Positive = 8.0
    """Minutes for all of it: what would take longer is left out, the least important first."""
    output: PathWord = "gpu-check"
    """Folder for check.json and check.md."""
    device: DeviceWord = "auto"
    """The GPU to check: cuda, or cuda:1 for the second that is visible; cpu, with smoke, to try the check itself."""
    smoke: bool = False
    """Tiny sizes: tries the check itself, on a CPU too; its figures mean nothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        given = {key: getattr(self, key) for key in ("minutes", "output", "device", "smoke")}
        for key, value in given.items():
            default = type(self).__dataclass_fields__[key].default
            self.require(self.gpu or value == default, key, value, "none without gpu, as nothing is measured")
