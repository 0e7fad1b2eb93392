"""The keys of a training run, and their rules.

Owns every key with its type, its default, its meaning and its range; the string under a field is the help text of the
command line. Keys are flat: a name occurs in one section only, so a YAML file and the command line need no prefix. Knows
nothing of torch, data or processes.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from unet_dist.config.courses import COURSES
from unet_dist.config.decoding import Bytes
from unet_dist.config.effects import check_effects
from unet_dist.config.loss_terms import check_loss_settings, parse_loss, spell_loss
from unet_dist.config.metrics import spell_metrics
from unet_dist.config.model_section import ModelConfig
from unet_dist.config.multi_label import Threshold, Thresholds, check_multi_label
from unet_dist.config.quantities import (
    EXPECTED_SHAPE,
    Bands,
    Finite,
    Normalising,
    Range,
    Selecting,
    parse_bands,
    parse_pattern,
    parse_range,
    parse_select,
    parse_shape,
)
from unet_dist.config.rules import (
    FREE,
    Also,
    AtLeast,
    Count,
    Fraction,
    Free,
    Main,
    Must,
    NotNegative,
    PathWord,
    Positive,
    Reads,
    RunFolder,
    Section,
    hints_of,
    marks,
)
from unet_dist.config.transforms import spell_transform
from unet_dist.errors import ConfigError, suggest

Precision = Literal["auto", "no", "fp16", "bf16"]
# YAML 1.1 reads the word no as false.
PrecisionWord = Annotated[Precision, Also(False, "no")]
Weights = Annotated[
    list[float],
    Must(
        lambda all_: all(0 <= one < math.inf for one in all_) and sum(all_) > 0,
        "finite numbers of 0 or more, not all 0",
    ),
]


@dataclass(frozen=True, kw_only=True)
class DataConfig(Section):
    """The data"""

    data_path: Main[PathWord] = "synthetic"
    """A folder with images/ and masks/, a table of paths, a file of COCO or of other tools, a folder of parquet or arrow files, a
    hub id, or synthetic (built-in street scenes)."""
    cache_path: Free[PathWord | None] = None
    """Folder of the decoded caches. Default: unet_dist in the user's cache folder."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    image_column: str = "pixel_values"
    """Column of the images in a hub or local data set."""
    label_column: str = "label"
    """Column of the masks in a hub or local data set."""
    images_folder: str | None = None
    """Folder of the images below data_path. {split} stands for train, val and test, as in {split}/images; a folder named *
    stands for any that images share with their masks. Default: guessed."""
    masks_folder: str | None = None
    """Folder of the masks below data_path; see images_folder."""
    image_names: Annotated[str, Must(lambda name: name.count("*") == 1, "a name with one *")] | None = None
    """Names of the images. * is the part that an image and its mask share, as in *_leftImg8bit; {split} is the word
    of the split, as in *_{split}. Default: guessed."""
    mask_names: Annotated[str, Must(lambda name: name.count("*") == 1, "a name with one *")] | None = None
    """Names of the masks, as in *_mask or mask_*; see image_names."""
    max_pixels: Free[Annotated[int, AtLeast(1, 2**63 - 1)]] = 67_108_864
    """Largest image to decode for the cache, pixels. A larger TIFF, and any Zarr, is read by windows from its file; other
    images are refused."""
    decode_memory: Free[Bytes | None] = None
    """Largest memory for decoding one piece of an image, such as 4GiB. An image that takes more is refused. Default: a quarter of
    this process's memory."""
    decode_seconds: Free[Positive] = 300.0
    """Longest time to open an image, or to decode one piece of it, s. A slower image is refused."""
    ignore_index: (
        Annotated[int, AtLeast(0), Must(lambda index: index <= 65535, "0 to 65535, what a 16-bit mask holds")] | None
    ) = None
    """Class id to ignore in loss, metrics, predictions and tables."""
    multi_label: bool = False
    """Classes may overlap: masks have a band or a file for each class (1 there, 0 not, 255 counts nowhere), and each class has a
    sigmoid of its own."""
    thresholds: Threshold | Thresholds | None = None
    """Probability from which a class is there, for all or one per class. Needs multi_label; the model keeps it. Default: 0.5."""
    label_map: dict[str, int] | None = None
    """Class ids of mask values: colours ("r,g,b" or "#rrggbb"), ids, or ranges of ids ("0-127"), such as '{0: 0, 255: 1}'."""
    value_range: Range | None = None
    """LOW,HIGH: convert images to 8 bits. LOW becomes black, HIGH white (12-bit data: 0,4095). Give predict the same range.
    Default: images keep their type."""
    normalisation: Normalising = "mean_std"
    """Scale each channel for the network: mean_std of the training split; percentile, clipped to its 0.5 and 99.5 % and scaled to
    -1 to 1; range LOW,HIGH likewise; or none. The model keeps it: predict needs no key."""
    bands: Bands | None = None
    """Bands of the images to take, in this order, by number from 1 or by the name that each file gives. Default: all. The model
    keeps it."""
    select: Selecting | None = None
    """Images of stacks to take: axes (t, z ...) with a place from 1, such as t=1,z=5 or z=5-7. A stack is a TIFF or Zarr of several
    images. Default: all of them. Give predict the same."""
    nodata: Finite | None = None
    """Value of pixels without data, which count nowhere. Default: what each file says. The model keeps it."""
    group_by: Annotated[str, Reads(parse_pattern, "a regular expression, sequence or folder")] | None = None
    """Keep samples together on one side of a split. sequence: ids that differ in their last number only. folder: ids of one folder.
    A column of a table of paths: rows with one value. A regular expression: ids with one first group, or one whole match. Default:
    every sample stands alone."""
    folds: Annotated[int, AtLeast(2)] | None = None
    """Number of parts for cross-validation, alike in classes. Part number fold is the validation. A given test split stays out."""
    fold: Annotated[int, AtLeast(0)] | None = None
    """The part that is the validation, 0 to folds - 1."""
    synthetic_images: Annotated[int, AtLeast(3)] = 100
    """Number of procedural street scenes, 3 or more (only with data_path synthetic)."""
    synthetic_size: Annotated[str, Reads(parse_shape, EXPECTED_SHAPE, "HxW")] = "1080x1920"
    """Height x width of a procedural scene, px (only with data_path synthetic)."""
    horizontal_flip: bool = True
    """Mirror half of the training crops left to right."""
    augmentation: str | list[dict[str, Any]] | None = None
    """Random changes of the crops. colour: light, saturation. street: also scale 0.75 to 1.5, blur. strong: also scale 0.4 to
    1.8, rotation by up to 10 degrees, noise. trivial: scale as street, then one change of light, colour or sharpness. paper:
    rotation, elastic deformation, grey values. Or a list of albumentations transforms, each {name: ColorJitter, ...arguments}.
    Or your own: my_package.transforms:noise(strength=3)."""
    class_balance: Fraction = 0.0
    """Share of the crops with a pixel of a random class at their centre, 0 to below 1. Each class is as likely as any other, so
    rare classes are seen more often."""
    cutmix: Fraction = 0.0
    """Share of the crops in which a random rectangle shows another training image with its labels, 0 to below 1."""
    classmix: Fraction = 0.0
    """Share of the crops in which another training image shows the pixels of half of its classes, with their labels, 0 to
    below 1."""
    num_workers: Free[Annotated[int, AtLeast(0)]] = 0
    """Processes per rank that read crops. 0 reads ahead in a thread."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label_map is not None:  # YAML reads ids as numbers, and a checkpoint's JSON gives them back as words
            object.__setattr__(self, "label_map", {str(key): target for key, target in self.label_map.items()})
        if isinstance(self.augmentation, str):
            object.__setattr__(self, "augmentation", spell_transform(self.augmentation))

    def band_numbers(self) -> tuple[int | str, ...] | None:
        """The numbers or names of bands."""
        return None if self.bands is None else parse_bands(self.bands)

    def selected(self) -> dict[str, tuple[int, int]]:
        """The places that select names, by axis."""
        return {} if self.select is None else parse_select(self.select)

    def value_limits(self) -> tuple[float, float] | None:
        """The two numbers of value_range."""
        return None if self.value_range is None else parse_range(self.value_range)


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig(Section):
    """The schedule"""

    input_size: Main[
        Annotated[int | Literal["full"], Must(lambda side: side == "full" or side >= 1, "1 or more, or full")]
    ] = 572
    """Side of the training input, px. An even side that the network cannot take is rounded up. full trains on whole images,
    each with its own shape."""
    context_px: Annotated[int, AtLeast(0)] | None = None
    """Pixels on each side of a training window that do not count in the loss. Default: the halo, so that training computes the
    same as a prediction. Fewer, with --padding same, cost less, but the border of a crop sees zeros where a prediction sees
    pixels. Predictions stay exact."""
    batch_size: Main[Count] = 16
    """Crops per optimizer step, over all processes."""
    micro_batch_size: Free[Count | None] = None
    """Crops (or tiles, one per crop) that a process takes at a time. Default: its whole share of an accumulation step, or 1
    where samples are split."""
    gradient_accumulation_steps: Free[Count | None] = None
    """Micro-batches per optimizer step on a process. Default: follows from the batch size."""
    split_sample: Free[bool | None] = None
    """Divide the tiles of a crop among the processes, so that several train on one sample. Default: if there are tiles and fewer
    crops than processes."""
    total_steps: Main[Count] = 6000
    """Number of optimizer steps."""
    eval_steps: Main[Count] = 100
    """Steps between validations. One more follows the last step."""
    learning_rate: Main[Positive] = 5e-4
    """Peak learning rate, above 0."""
    encoder_learning_rate_factor: NotNegative = 1.0
    """Factor on the learning rate of an encoder (model unet:ENCODER), 0 or more. At 0 its weights stay as published, and it
    needs no backward pass."""
    encoder_frozen_steps: Annotated[int, AtLeast(0)] = 0
    """Number of first steps that leave the encoder's weights as they are."""
    schedule: Annotated[str, Reads(str, "a word", shown="onecycle|constant|cosine|poly|PACKAGE.MODULE:NAME")] = (
        "onecycle"
    )
    """Course of the learning rate. All built-in ones but onecycle start with a linear warm-up."""
    warmup_fraction: Fraction = 0.3
    """Share of the steps during which the learning rate rises, 0 to below 1."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """adamw, or muon: it makes the gradient of each layer's filters orthogonal, and leaves the rest to AdamW. muon learns more per
    step; a step takes longer."""
    weight_decay: NotNegative = 0.01
    """Decoupled weight decay, 0 or more."""
    max_grad_norm: Positive | None = None
    """Clip the gradient of the whole model to this norm, above 0. Default: no clipping."""
    loss: str | dict[str, float] = "cross_entropy"
    """cross_entropy, focal, dice (over the whole batch) or lovasz (per image, without tiles), or a weighted sum such as
    cross_entropy+0.5*dice."""
    deep_supervision: Annotated[int, AtLeast(0, 7)] = 0
    """Number of coarser levels of the decoder with a loss of their own in training, each weighing half of the one before. Models
    do not keep their heads."""
    label_smoothing: Fraction = 0.0
    """Share of the cross-entropy spread evenly over all classes but the ignored one, 0 to below 1."""
    focal_gamma: NotNegative = 2.0
    """Exponent of the focal loss, 0 or more."""
    border_class: Annotated[int, AtLeast(0), Must(lambda index: index < 65535, "a class id, 0 to 65534")] | None = None
    """Class between objects. Its pixels weigh more in cross-entropy and focal loss, the closer two objects are (equation 2 of
    the paper). Default: no border weights."""
    border_weight: Positive = 10.0
    """Largest extra weight of a border pixel (w0), above 0."""
    border_sigma_px: Positive = 5.0
    """Reach of the border weights (sigma), px, above 0."""
    class_weights: Literal["inverse", "median", "sqrt"] | Weights | None = None
    """Weight of each class in the loss: by inverse frequency, by median frequency, by its square root (sqrt), or a list with one
    number per class."""
    seed: Annotated[int, AtLeast(0, 2**63 - 1)] = 0
    """Seed of the split, the order, the crops and the first weights, 0 to 2^63 - 1."""
    ema_decay: Annotated[float, Must(lambda decay: 0 < decay < 1, "above 0 and less than 1")] | None = None
    """Decay of a moving average of the weights, above 0 and below 1, such as 0.999. Validations, best/ and last/ use the
    averaged weights; checkpoints keep both. Default: no average."""
    early_stopping_evals: Free[Count | None] = None
    """Number of validations without a better mean IoU that ends the run. Default: never."""
    time_limit_min: Free[Positive | None] = None
    """Minutes until the run saves and exits. The same command resumes. Default: no limit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "loss", spell_loss(parse_loss(self.loss)))
        object.__setattr__(self, "schedule", COURSES.spell(self.schedule))


@dataclass(frozen=True, kw_only=True)
class RunConfig(Section):
    """The run"""

    output_path: Free[Main[RunFolder]] = "output"
    """The run's folder. An unfinished run in it is resumed."""
    debug: Free[bool] = False
    """Debug mode: one process, no workers, deterministic. In the first step it prints every layer's output and writes windows and
    masks to figures/. It tries to overfit 4 crops within total_steps (at most 500), then tries a resume. It leaves a run in
    output_path alone; the default output_path becomes debug."""
    resume: Free[PathWord] = "auto"
    """auto resumes the run in output_path. never starts anew, and refuses a folder with a run. The path of a checkpoint
    branches off from it into another folder."""
    allow_config_change: Free[bool] = False
    """Resume even if settings or data differ in a way that changes the result."""
    extend_schedule: Free[Literal["continue", "restart"] | None] = None
    """Learning rate after you raise total_steps of an unfinished run. continue: that of a run of the new length, from the current
    step. restart: a new course over the steps left. Default: refuse."""
    checkpoint_steps: Free[Count | None] = None
    """Steps between checkpoints. Default: eval_steps."""
    keep_checkpoints: Free[Count] = 2
    """Number of newest checkpoints to keep, 1 or more."""
    log_steps: Free[Count] = 10
    """Steps between lines of metrics.jsonl. A printed log shows at most one line per second."""
    metrics: Free[str | None] = None
    """More scores of each validation and evaluation, separated by commas: mean_dice, or an import path such as
    my_package.metrics:kappa(power=2)."""
    trackers: Free[list[str]] = field(default_factory=lambda: ["tensorboard"])
    """Trackers by their accelerate name: tensorboard, wandb, trackio, ..."""
    mixed_precision: PrecisionWord = "auto"
    """auto is bf16 where the device is fast at it, else no. The precision of accelerate launch is honoured."""
    dtype: Literal["float32", "float64"] = "float32"
    """Type of the weights. float64 is for comparing runs to the last digit."""
    tf32: bool = False
    """With mixed_precision no: let a GPU round the factors of float32 products to 11 bits. Faster, with other results."""
    deterministic: bool = False
    """Use deterministic algorithms only: the same bits on the same kind of device, slower on a GPU."""
    cudnn_benchmark: Free[bool] = False
    """Let cuDNN time its algorithms, once per shape, and take the fastest. Not with deterministic or input_size full."""
    compile: Free[bool] = False
    """Compile the network (torch.compile). Validations run uncompiled. The first step takes minutes on a CPU. If compilation
    fails, training continues uncompiled with a warning."""
    memory_format: Free[Literal["auto", "channels_last", "contiguous"]] = "auto"
    """Order of a batch's values in training. channels_last puts the channels of a pixel side by side, contiguous one channel
    after the other. auto is channels_last on GPUs, and for convolutional networks on CPUs with AVX-512; else contiguous."""
    tile_size: Free[Main[Count | None]] = None
    """Largest side of a window, px, in training and validation. A larger crop is computed tile by tile, with the gradient of
    the whole and the memory of one tile. Default: undivided crops; a validation takes 572 or the input size, whichever is
    larger."""
    window_batch: Free[Count] = 4
    """Windows that a process computes at once in a validation."""
    expected_processes: Free[Count | None] = None
    """Number of processes to expect; the run refuses any other. Launch scripts set it."""
    collective_timeout_s: Free[Positive] = 1800.0
    """Longest time that a process waits for another, s. After it the run ends."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "metrics", spell_metrics(self.metrics))


@dataclass(frozen=True, init=False)
class Config:
    """A training run, resolved and checked. Takes the keys of the command line.

    >>> Config(data_path="pairs", total_steps=500).schedule.total_steps
    500
    """

    model: ModelConfig
    data: DataConfig
    schedule: ScheduleConfig
    run: RunConfig
    given: ClassVar[frozenset[str]] = frozenset()
    """The keys that it was built with; the others have their defaults. No part of its value."""

    def __init__(self, **values: object) -> None:
        """Build from flat keys; the absent ones take their defaults.

        Raises:
            ConfigError: a key that is not one of ours (names the nearest), or a value out of range.
        """
        for key in values:
            if key not in KEYS:
                raise ConfigError(f"Unknown key {key!r}. {suggest(key, KEYS)}")
        words = {k: os.fspath(v) if isinstance(v, os.PathLike) else v for k, v in values.items()}
        object.__setattr__(self, "given", frozenset(words))
        for name, section in SECTIONS.items():
            object.__setattr__(self, name, section(**{k: v for k, v in words.items() if KEYS[k] == name}))
        check(self)

    @classmethod
    def from_flat(cls, values: Mapping[str, object]) -> Config:
        """Build from the keys of a file, whatever YAML took them for."""
        return cls(**{str(key): value for key, value in values.items()})

    def flat(self) -> dict[str, object]:
        """All keys with their values, in the order of the help."""
        return {key: getattr(getattr(self, section), key) for key, section in KEYS.items()}

    def replace(self, **values: object) -> Config:
        """A copy with some flat keys changed."""
        return Config(**{**self.flat(), **values})


SECTIONS: dict[str, Any] = {
    "model": ModelConfig,
    "data": DataConfig,
    "schedule": ScheduleConfig,
    "run": RunConfig,
}
KEYS: dict[str, str] = {f.name: name for name, section in SECTIONS.items() for f in dataclasses.fields(section)}

HINTS: dict[str, Any] = {key: kind for section in SECTIONS.values() for key, kind in hints_of(section).items()}

# A resumed run may differ in these: they cut, place or show the work, and leave its result alone.
FREE_KEYS = frozenset(key for key, kind in HINTS.items() if FREE in marks(kind))


def check(config: Config) -> None:
    """Check what no field can judge by itself, without data or device.

    Raises:
        ConfigError: names the key, what came and what was expected.
    """
    defaults = {f.name: f.default for section in SECTIONS.values() for f in dataclasses.fields(section)}
    check_loss_settings(config.flat(), defaults)
    check_multi_label(config.flat(), defaults)
    check_effects(config.flat(), defaults)
