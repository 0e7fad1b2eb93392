"""What the user may say, and what we answer.

Owns every key with its type, its default, its meaning and its range; the string under a field is the help text of the
command line. Keys are flat: a name occurs in one section only, so a YAML file and the command line need no prefix. Knows
nothing of torch, data or processes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_type_hints

from unet_dist.config.loss_terms import check_loss_settings, parse_loss, spell_loss
from unet_dist.errors import ConfigError, suggest

Precision = Literal["auto", "no", "fp16", "bf16"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network"""

    model: str = "unet"
    """Architecture: unet is the paper's (Ronneberger et al. 2015); segformer, or segformer:b0 to b5, starts new, and
    segformer:USER/NAME from published weights (extra: segformer); smp:Unet:resnet34 and others, with :imagenet from published
    weights (extra: smp)."""
    in_channels: int | None = None
    """Channels of an image, 1 or more; by default what the data set has."""
    num_classes: int | None = None
    """Classes, 2 to 255, the ignored one included; by default what the data set names."""
    base_channels: int = 64
    """Channels of the first level, 1 or more; each level down doubles them."""
    depth: int = 4
    """Number of poolings, 1 to 8."""
    norm: Literal["none", "weight", "batch", "group"] = "none"
    """Normalisation: none is the paper; weight (scaled weight standardisation) keeps every contract; batch couples the
    samples of a micro-batch in training; group couples all pixels, so that no exact tile exists."""
    padding: Literal["valid", "same"] = "valid"
    """Convolutions without padding (the paper) or with zeros."""
    upsampling: Literal["transposed", "bilinear"] = "transposed"
    """Transposed convolutions (the paper) or bilinear interpolation and a convolution."""
    stem_stride: int = 1
    """Side of the pixel blocks that are folded into channels before the first level and unfolded after the last, px, a power of
    two up to 16: convolutions at 1/2 of the side take 1/4 of the work and see twice as far. 1 is the paper."""
    dropout: float = 0.0
    """Probability of dropping a value at the end of the contracting path, 0 to below 1."""
    checkpoint_activations: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    init_from: str | None = None
    """A run's folder, a model folder or a hub id whose weights to start from; a head with other classes starts new."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The data"""

    data_path: str = "synthetic"
    """A hub id, a local data-set directory (parquet or arrow), a folder of images/ and masks/, or synthetic."""
    cache_path: str | None = None
    """Folder of the decoded caches; by default unet_dist in the user's cache folder."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    image_column: str = "pixel_values"
    """Column of the images in a hub or local data set."""
    label_column: str = "label"
    """Column of the masks in a hub or local data set."""
    max_pixels: int = 67_108_864
    """An image of more pixels is not decoded for the cache: TIFF is read by windows from its file, as Zarr always is, and
    anything else refused."""
    ignore_index: int | None = None
    """Class id that counts nowhere: not in the loss, the metric, a prediction or a table."""
    label_map: dict[str, int] | None = None
    """Colour ("r,g,b" or "#rrggbb") or id of a mask -> class id, for palette and RGB masks."""
    synthetic_images: int = 100
    """Number of procedural street scenes, 3 or more (data_path synthetic only)."""
    synthetic_size: str = "1080x1920"
    """Height x width of a procedural scene, px (data_path synthetic only)."""
    horizontal_flip: bool = True
    """Mirror half of the training crops left to right."""
    augmentation: str | list[dict[str, Any]] | None = None
    """paper (rotation, elastic deformation, grey values) or street (scale, colour, blur), or albumentations transforms in order,
    each {name: ColorJitter, ...its arguments}."""
    num_workers: int = 0
    """Processes a rank that read crops; 0 reads ahead in a thread."""

    def __post_init__(self) -> None:
        if self.label_map is not None:  # YAML reads ids as numbers, and a checkpoint's JSON gives them back as words
            object.__setattr__(self, "label_map", {str(key): target for key, target in self.label_map.items()})


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The schedule"""

    input_size: int | Literal["full"] = 572
    """Side of the training input window, px; an even side that the network cannot take is rounded up. full trains on whole
    images, each with its own shape."""
    batch_size: int = 16
    """Crops of one optimizer step over all processes."""
    micro_batch_size: int | None = None
    """Crops (or tiles, one of each crop) that one process takes at a time; by default its whole share of an accumulation
    step, and 1 where samples are split."""
    gradient_accumulation_steps: int | None = None
    """Micro-batches of one optimizer step on a process; by default what the batch size leaves."""
    split_sample: bool | None = None
    """Share out the tiles of the batch over the processes instead of whole crops, so that one sample trains on several; by
    default where there are tiles, and fewer crops than processes."""
    total_steps: int = 6000
    """Optimizer steps of the run."""
    eval_steps: int = 100
    """Optimizer steps between two validations; the last step is always validated."""
    learning_rate: float = 5e-4
    """Peak learning rate, above 0."""
    schedule: Literal["onecycle", "constant", "cosine", "poly"] = "onecycle"
    """Course of the learning rate; all but onecycle start with a linear warm-up."""
    warmup_fraction: float = 0.3
    """Share of the steps in which the learning rate rises, 0 to below 1."""
    weight_decay: float = 0.01
    """Decoupled weight decay of AdamW, 0 or more."""
    max_grad_norm: float | None = None
    """Clip the gradient of the whole model to this norm, above 0; by default not."""
    loss: str | dict[str, float] = "cross_entropy"
    """cross_entropy, focal, dice (over the whole batch) or lovasz (per image, without tiles), or a weighted sum such as
    cross_entropy+0.5*dice."""
    label_smoothing: float = 0.0
    """Share of the cross-entropy that all classes but the ignored one get evenly, 0 to below 1."""
    focal_gamma: float = 2.0
    """Exponent of the focal loss, 0 or more."""
    border_class: int | None = None
    """Class between objects: its pixels weigh more in cross-entropy and focal loss the nearer two objects are (the paper's
    equation 2); by default none does."""
    border_weight: float = 10.0
    """What a border pixel weighs at most beyond its class (w0), above 0."""
    border_sigma_px: float = 5.0
    """Reach of the border weights (sigma), px, above 0."""
    class_weights: str | list[float] | None = None
    """Weight of each class in the loss: inverse, median or sqrt (of median) frequency, or a list of one number a class."""
    seed: int = 0
    """Seed of the split, the order, the crops and the first weights, 0 to 2^63 - 1."""
    ema_decay: float | None = None
    """Decay of a moving average of the weights, above 0 and below 1, such as 0.999. Validations, best/ and last/ then have the
    averaged weights, checkpoints both; by default there is none."""
    early_stopping_evals: int | None = None
    """End the run after so many validations without a better mean IoU; by default never."""
    time_limit_min: float | None = None
    """Save and leave after so many minutes of wall time, to go on when started again; by default never."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "loss", spell_loss(parse_loss(self.loss)))


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The run"""

    output_path: str = "output"
    """The run's folder; an unfinished run in it is resumed."""
    debug: bool = False
    """Debug mode: one process, no workers, deterministic; prints what every layer makes of the first step, writes the windows
    and masks it was fed to figures/, tries to overfit 4 crops within total_steps (500 at most) and tries a resume. A run in
    output_path is not touched; the default output_path becomes debug."""
    resume: str = "auto"
    """auto: go on with what the folder holds; never: start anew, and refuse a folder that holds a run; or the path of a
    checkpoint to branch off from into another folder."""
    allow_config_change: bool = False
    """Resume although settings that change the result differ from the interrupted run's."""
    extend_schedule: Literal["continue", "restart"] | None = None
    """How the learning rate goes on where total_steps was raised on a run under way: continue enters the course of the new
    length at the step reached, restart begins a new course over the steps left; by default such a run is refused."""
    checkpoint_steps: int | None = None
    """Optimizer steps between two checkpoints; by default eval_steps."""
    keep_checkpoints: int = 2
    """Newest checkpoints to keep, 1 or more."""
    log_steps: int = 10
    """Optimizer steps between two lines of metrics."""
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])
    """Trackers by their accelerate name: tensorboard, wandb, trackio, ..."""
    mixed_precision: Precision = "auto"
    """auto is bf16 where the device is fast at it, else no; what accelerate launch says is honoured."""
    dtype: Literal["float32", "float64"] = "float32"
    """Type of the weights; float64 is for comparing runs to the last digit."""
    deterministic: bool = False
    """Deterministic algorithms only: the same bits on the same kind of device, at some cost on a GPU."""
    compile: bool = False
    """Compile the network for training (torch.compile, one graph for crops of one size): the first step then takes minutes on a
    CPU. Validations compute as ever. Where nothing here can compile, it is said and the run goes on without."""
    memory_format: Literal["auto", "channels_last", "contiguous"] = "auto"
    """Order of a batch's values in training: channels_last, with the channels of a pixel side by side; contiguous, one channel
    after the other; auto is channels_last on GPUs, and for convolutional networks on CPUs with AVX-512, which are faster with
    it, else contiguous."""
    tile_size: int | None = None
    """Largest side of a window, px, in training and validation. A larger crop is computed tile by tile, with the gradient of
    the whole and the memory of one tile. By default crops are undivided, and a validation takes 572 or the input size,
    whichever is more."""
    window_batch: int = 4
    """Windows that a process predicts at once in a validation."""
    expected_processes: int | None = None
    """Refuse to start on another number of processes; a launch script states it."""
    collective_timeout_s: float = 1800.0
    """Seconds after which a process that waits for another ends the run."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """A training run, resolved and checked."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        check(self)

    @classmethod
    def from_flat(cls, values: dict[str, Any]) -> Config:
        """Build from flat keys; the absent ones take their defaults.

        Raises:
            ConfigError: a key that is not one of ours (names the nearest), or a value out of range.
        """
        for key in values:
            if key not in KEYS:
                raise ConfigError(f"Unknown key {key!r}. {suggest(key, KEYS)}")
        sections = {
            name: section(**{k: v for k, v in values.items() if KEYS[k] == name}) for name, section in SECTIONS.items()
        }
        return cls(**sections)

    def flat(self) -> dict[str, Any]:
        """All keys with their values, in the order of the help."""
        return {key: getattr(getattr(self, section), key) for key, section in KEYS.items()}

    def replace(self, **values: Any) -> Config:
        """A copy with some flat keys changed."""
        return Config.from_flat({**self.flat(), **values})


SECTIONS: dict[str, Any] = {
    "model": ModelConfig,
    "data": DataConfig,
    "schedule": ScheduleConfig,
    "run": RunConfig,
}
KEYS: dict[str, str] = {f.name: name for name, section in SECTIONS.items() for f in dataclasses.fields(section)}

# A resumed run may differ in these: they cut, place or show the work, and leave its result alone.
FREE_KEYS = frozenset(
    {
        *(
            "cache_path",
            "max_pixels",
            "num_workers",
            "micro_batch_size",
            "gradient_accumulation_steps",
            "split_sample",
            "checkpoint_activations",
            "compile",
            "memory_format",
        ),
        *("early_stopping_evals", "time_limit_min", "output_path", "resume", "allow_config_change", "extend_schedule"),
        *(
            "checkpoint_steps",
            "keep_checkpoints",
            "log_steps",
            "trackers",
            "window_batch",
            "tile_size",
            "expected_processes",
            "debug",
        ),
        "collective_timeout_s",
    }
)


def require(holds: bool, key: str, got: object, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{key}: got {got!r}, expected {expected}. Change {key} in the config or --{key}.")


def check(config: Config) -> None:
    """Check every value that can be judged without data or device.

    Raises:
        ConfigError: names the key, what came and what was expected.
    """
    values = config.flat()
    for section in SECTIONS.values():
        hints = get_type_hints(section)
        for f in dataclasses.fields(section):
            choices = get_args(hints[f.name])
            if choices[1:] == (type(None),) and values[f.name] is not None:
                choices = get_args(choices[0])
            if choices and all(isinstance(choice, str) for choice in choices):
                require(values[f.name] in choices, f.name, values[f.name], "one of " + ", ".join(choices))
            if hints[f.name] in (str, str | None):
                word = values[f.name]
                is_word = isinstance(word, str) and word != "" and "\0" not in word
                require(
                    is_word or (word is None and hints[f.name] is not str),
                    f.name,
                    word,
                    "a word without null characters",
                )
    at_least = {
        "in_channels": 1, "base_channels": 1, "synthetic_images": 3, "max_pixels": 1, "num_workers": 0, "batch_size": 1,
        "micro_batch_size": 1, "gradient_accumulation_steps": 1, "total_steps": 1, "eval_steps": 1, "seed": 0,
        "early_stopping_evals": 1, "checkpoint_steps": 1, "keep_checkpoints": 1, "log_steps": 1, "tile_size": 1,
        "window_batch": 1, "expected_processes": 1, "weight_decay": 0, "ignore_index": 0,
        "focal_gamma": 0, "border_class": 0,
    }  # fmt: skip
    for key, least in at_least.items():
        value = values[key]
        require(value is None or value >= least, key, value, f"{least} or more")
        largest = 2**63 - 1 if key in ("seed", "max_pixels") else 2**31 - 1
        require(value is None or value <= largest, key, value, f"{largest} at most")
    side = values["input_size"]
    require(side == "full" or (isinstance(side, int) and side >= 1), "input_size", side, "1 or more, or full")
    above_0 = (
        "learning_rate",
        "max_grad_norm",
        "time_limit_min",
        "collective_timeout_s",
        "border_weight",
        "border_sigma_px",
    )
    for key in above_0:
        value = values[key]
        require(value is None or 0 < value < float("inf"), key, value, "a finite number above 0")
    for key in ("dropout", "warmup_fraction", "label_smoothing"):
        require(0 <= values[key] < 1, key, values[key], "0 or more and less than 1")
    decay = values["ema_decay"]
    require(decay is None or 0 < decay < 1, "ema_decay", decay, "above 0 and less than 1")
    for key in ("weight_decay", "focal_gamma"):
        require(values[key] < float("inf"), key, values[key], "a finite number")
    border = values["border_class"]
    require(border is None or border < 255, "border_class", border, "a class id, 0 to 254")
    require(1 <= config.model.depth <= 8, "depth", config.model.depth, "1 to 8")
    stem = config.model.stem_stride
    require(stem in (1, 2, 4, 8, 16), "stem_stride", stem, "1, 2, 4, 8 or 16")
    classes = config.model.num_classes
    require(classes is None or 2 <= classes <= 255, "num_classes", classes, "2 to 255")
    ignore = config.data.ignore_index
    require(ignore is None or ignore <= 65535, "ignore_index", ignore, "0 to 65535, what a 16-bit mask holds")
    weights = config.schedule.class_weights
    if isinstance(weights, str):
        require(
            weights in ("inverse", "median", "sqrt"),
            "class_weights",
            weights,
            "inverse, median, sqrt or a list of numbers",
        )
    elif weights is not None:
        require(
            all(0 <= w < float("inf") for w in weights) and sum(weights) > 0,
            "class_weights",
            weights,
            "finite numbers of 0 or more, not all 0",
        )
    check_loss_settings(values, {f.name: f.default for f in dataclasses.fields(ScheduleConfig)})
    _check_effects(config)
    synthetic_size(config.data.synthetic_size)


def _check_effects(config: Config) -> None:
    """Refuse settings that would have no effect."""
    data, model = config.data, config.model
    if data.data_path != "synthetic":
        for key in ("synthetic_images", "synthetic_size"):
            default = next(f.default for f in dataclasses.fields(DataConfig) if f.name == key)
            if getattr(data, key) != default:
                raise ConfigError(
                    f"{key}: got {getattr(data, key)!r}, which has no effect as data_path is {data.data_path!r}. "
                    f"Remove {key}, or set --data_path synthetic."
                )
    if config.run.dtype == "float64" and config.run.mixed_precision not in ("auto", "no"):
        raise ConfigError(
            f"dtype: got float64 together with mixed_precision {config.run.mixed_precision}, expected no mixed precision. "
            "Set --mixed_precision no."
        )
    if config.run.compile and config.schedule.input_size == "full":
        raise ConfigError(
            "compile: got true together with input_size full, expected crops of one size: each shape is compiled anew. Remove "
            "--compile, or set --input_size."
        )
    if model.norm == "batch" and model.padding == "valid" and config.schedule.batch_size == 1:
        raise ConfigError(
            "norm: got batch at batch_size 1, expected at least 2 crops to normalise over. Set --norm weight."
        )


def synthetic_size(text: str) -> tuple[int, int]:
    """Read "1080x1920" as (height, width), px.

    Raises:
        ConfigError: not two whole numbers above 0 joined by an x.
    """
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(p.isdigit() and int(p) > 0 for p in parts):
        raise ConfigError(f"synthetic_size: got {text!r}, expected height x width in px such as 1080x1920.")
    return int(parts[0]), int(parts[1])
