"""Parts that several commands build from what the user said.

Owns how a config becomes a network, and how that predicts. The commands themselves read top to bottom in their own files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import yaml

from unet_dist.config import Config
from unet_dist.data.cache import Cache
from unet_dist.distributed import Processes, open_processes
from unet_dist.errors import CheckpointError, ConfigError, SizeError
from unet_dist.models.registry import MODELS, build_model, find_model, load_model
from unet_dist.planner.simulation import Setting
from unet_dist.prediction.blended import BlendedTiles
from unet_dist.prediction.values import Recipe
from unet_dist.prediction.whole import WholeImages
from unet_dist.tiling.crop_plan import CropPlanner
from unet_dist.tiling.geometry import (
    DEFAULT_TILE_SIZE_PX,
    WindowSizes,
    aligned_halo,
    default_tile_size,
    smallest_tile_size,
)
from unet_dist.tiling.training import require_separable
from unet_dist.tracking import Teller

CONFIG_FILE = "config.yaml"


def open_for(config: Config) -> Any:
    """Join the processes as a config says."""
    run = config.run
    return open_processes(
        mixed_precision="no" if run.dtype == "float64" else run.mixed_precision,
        expected_processes=run.expected_processes,
        collective_timeout_s=run.collective_timeout_s,
        deterministic=run.deterministic,
        trackers=run.trackers,
        project_dir=run.output_path,
    )


def architecture(config: Config) -> dict[str, Any]:
    """The keys of a config that are options of its network.

    Raises:
        ConfigError: there is no such network, or a key is set that has no effect on it.
    """
    name, model = config.model.model, config.model
    keys = find_model(name)[0].config_keys
    for key in sorted({key for other in MODELS.values() for key in other.config_keys} - set(keys)):
        default = next(f.default for f in fields(model) if f.name == key)
        if getattr(model, key) != default:
            raise ConfigError(
                f"{key}: got {getattr(model, key)!r}, which has no effect on the model {name}: "
                f"{'it takes ' + ', '.join(keys) if keys else 'it takes no such key'}. Remove {key}."
            )
    return {key: getattr(model, key) for key in keys}


def build_network(config: Config, cache: Cache) -> torch.nn.Module:
    """Build the network of a config for a data set, with first weights that depend on the seed alone.

    Raises:
        ConfigError: the data set has other channels than the config says.
    """
    wanted = config.model.in_channels
    if wanted is not None and wanted != cache.channels:
        raise ConfigError(
            f"in_channels: got {wanted}, expected {cache.channels} as the images of {cache.name} have. Remove in_channels, or "
            "convert the images."
        )
    torch.manual_seed(config.schedule.seed)
    model = build_model(
        config.model.model,
        in_channels=cache.channels,
        num_classes=cache.num_classes,
        **architecture(config),
        mean=cache.mean,
        std=[max(std, 1.0) for std in cache.std],  # a flat channel stays finite: one step of uint8
        class_names=cache.class_names,
        ignore_index=cache.ignore_index,
    )
    model.to(getattr(torch, config.run.dtype))
    assert isinstance(model, torch.nn.Module)
    return model


def load_published(config: Config, model: Any, teller: Teller) -> None:
    """Copy the published weights into a new network that its config names as its variant; where it names none, nothing.

    Raises:
        CheckpointError: they cannot be had, or do not fit.
    """
    _, variant = find_model(config.model.model)
    told = model.load_variant(variant) if variant else None
    if told is not None:
        teller.say(told)


def build_skeleton(config: Config) -> Any:
    """The network without weights, before any data is read: for what follows from its architecture alone."""
    options = architecture(config)
    with torch.device("meta"):
        return build_model(config.model.model, **options)


def simulated(config: Config, *, channels: int, num_classes: int, device_type: str, precision: str) -> Setting:
    """What the planner takes of a config: the network, where it computes, and what is trained.

    Args:
        precision: no, bf16 or fp16.
    """
    return Setting(
        build=partial(build_model, config.model.model, in_channels=channels, num_classes=num_classes),
        options=tuple(architecture(config).items()),
        device_type=device_type,
        precision=precision,
        dtype=getattr(torch, config.run.dtype),
        loss=config.schedule.loss,
        averages=config.schedule.ema_decay is not None,
        memory_format=config.run.memory_format,
    )


def plan_crops(config: Config, model: Any, side: int | None) -> CropPlanner:
    """How training crops are cut into tiles.

    Args:
        side: of the crop's window, px; None for whole images.

    Raises:
        SizeError: the network does not take windows of tile_size.
        LocalityError: tiles or split samples would change the gradient of this network; names the layer.
    """
    wanted = config.run.tile_size
    if wanted is not None:
        wanted = int(model.window_sizes.require(wanted, "tile_size"))
    if wanted is not None and (side is None or wanted < side):
        require_separable(model, f"tile_size {wanted} below input_size {side or 'full'}", by_pixels=True)
        smallest = smallest_tile_size(model.window_sizes, model.locality)
        if wanted < smallest:
            raise SizeError(
                f"tile_size: got {wanted}, expected {smallest} or more for this network. Set --tile_size {smallest}."
            )
    if config.schedule.split_sample:
        require_separable(model, "split_sample true", by_pixels=False)
    if side is None:
        require_separable(model, "input_size full", by_pixels=False)
    return CropPlanner(model.window_sizes, model.locality, training_halo(model), wanted)


def training_halo(model: Any) -> int:
    """Pixels that a training output leaves out on each side of its window: the halo where there is one, else the margin."""
    sizes: WindowSizes = model.window_sizes
    return sizes.margin if model.locality is None else aligned_halo(sizes, model.locality)


def resolve_input_size(wanted: int | Literal["full"], model: Any, teller: Teller) -> int | None:
    """The window's side for an input size: itself where it is valid; an even one that is not is rounded up, and said.

    None for full, where each image has its own.

    Raises:
        SizeError: an odd side that is not valid, or one that leaves no output.
    """
    sizes: WindowSizes = model.window_sizes
    if wanted == "full":
        return None
    if not sizes.is_valid(wanted) and wanted % 2:
        sizes.require(wanted, "input_size")
    side = sizes.round_up(wanted)
    smallest = sizes.minimum if model.locality is None else smallest_tile_size(sizes, model.locality)
    if side < smallest:
        raise SizeError(
            f"input_size: got {wanted}, expected {smallest} or more for this network. Set --input_size {smallest}."
        )
    if side != wanted:
        teller.say(
            f"input_size {wanted} is not a side this network takes: rounded up to {side}, output {side - 2 * training_halo(model)}."
        )
    return side


def resolve_tile_size(wanted: int | None, model: Any, trained: Config | None) -> int:
    """The largest side of a prediction window, px.

    Args:
        wanted: by the user, strict.
        model: the network.
        trained: the run it is of, if any. Its tile_size bounds memory, so it is kept; else windows are of the usual side, or of the
            input size where that is larger: the labels are the same, and small windows compute many pixels more than once.

    Raises:
        SizeError: the wanted side is not valid.
    """
    sizes: WindowSizes = model.window_sizes
    if wanted is None and trained is not None:
        wanted = trained.run.tile_size
    if wanted is not None:
        return int(sizes.require(wanted, "tile_size"))
    input_size = trained.schedule.input_size if trained is not None else None
    side = sizes.round_up(input_size) if isinstance(input_size, int) else None
    if model.locality is None:  # what it sees of an image depends on the window: as in training
        return side or sizes.round_down(DEFAULT_TILE_SIZE_PX) or sizes.minimum
    return max(side or 0, default_tile_size(sizes, model.locality))


@dataclass(frozen=True)
class Inference:
    """How images are predicted.

    Attributes:
        name: as evaluation-SPLIT.json has it: exact tiles, blended tiles or whole image.
        tiles: None for exact tiles.
        is_asked: whether the user named it.
    """

    name: str
    tiles: BlendedTiles | WholeImages | None
    is_asked: bool

    def told(self, model: Any) -> str | None:
        """Why images are not predicted exactly, in a sentence; None where they are, or where it was asked for."""
        if self.tiles is None or self.is_asked:
            return None
        size = (
            ""
            if model.resize_to is None
            else f" scaled to {model.resize_to[0]}x{model.resize_to[1]}, as it was trained"
        )
        return f"No exact tiles ({model.locality_obstacle}): predicted by {self.name}{size}."


def choose_inference(
    model: Any,
    *,
    blend: bool = False,
    whole: bool = False,
    window_batch: int,
    recipe: Recipe | None = None,
    say: Callable[[str], None],
) -> Inference:
    """Choose how a network predicts: exactly where it is local, else as it was trained, else by blended tiles.

    Args:
        blend, whole: what the user asked for.
        recipe: of a prediction.
        say: told that memory ran out and how it goes on.
    """
    recipe = recipe or Recipe()
    if whole or (model.resize_to is not None and not blend):
        return Inference("whole image", WholeImages(model, recipe), is_asked=whole)
    if blend or model.locality is None:
        return Inference("blended tiles", BlendedTiles(model, recipe, window_batch, say), is_asked=blend)
    return Inference("exact tiles", None, is_asked=False)


def load_run(path: str, device: torch.device) -> tuple[Any, Config | None, Path | None]:
    """Load the model of RUN: a run's folder (its best, else its last), a model folder or a hub id.

    Returns:
        The model in evaluation mode, the run's config and its folder (None where RUN is no run's folder).

    Raises:
        CheckpointError: there is no model.
    """
    folder = Path(path)
    if not (folder / CONFIG_FILE).is_file():
        return load_model(path, device=device), None, None
    config = read_run_config(folder)
    for name in ("best", "last"):
        if (folder / name / "config.json").is_file():
            return load_model(folder / name, device=device), config, folder
    raise CheckpointError(
        f"{folder}: this run has neither best/ nor last/ yet: it was stopped before its first validation. Go on training it."
    )


def read_run_config(folder: Path) -> Config:
    """The resolved config of a run."""
    try:
        values = yaml.safe_load((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        return Config.from_flat(values)
    except (OSError, yaml.YAMLError, TypeError) as error:
        raise CheckpointError(f"{folder / CONFIG_FILE}: not readable: {error}") from None


def teller_of(processes: Processes) -> Teller:
    """A teller that speaks on the main process only."""
    return Teller(speaks=processes.is_main)
