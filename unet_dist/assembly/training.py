"""The finished parts of a training run, as `train` runs them and `bench` times them.

Owns how a checked config becomes sizes, a placed network and the parts of a Trainer. Must not know checkpoints: whoever
resumes from one puts it into the network and the optimizer between `place_network` and `assemble`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from unet_dist.assembly.given import Given
from unet_dist.assembly.inference import choose_tiles, reason_of
from unet_dist.assembly.network import build_skeleton, refuse_levels, supervise
from unet_dist.assembly.objective import border_weights_of, loss_of, require_course, require_ids, require_loss
from unet_dist.assembly.sizes import CropSizes, resolve_tile_size, settle_crops
from unet_dist.config.sections import Config
from unet_dist.config.transforms import is_recipe
from unet_dist.data.batches.crops import CropReader, SampleTransform
from unet_dist.data.batches.mixing import Mixing
from unet_dist.data.batches.recipes import RECIPES, Recipe
from unet_dist.data.batches.sampler import ClassBalance
from unet_dist.data.batches.shares import RunShares
from unet_dist.data.batches.transforms import CheckedTransform, build_transform
from unet_dist.data.decoded.cache import Cache, CachedSplit
from unet_dist.data.decoded.windowed import WindowedImage
from unet_dist.errors import ConfigError
from unet_dist.machine.compiling import choose_backend, compiled_within, in_words
from unet_dist.machine.memory import is_out_of_memory
from unet_dist.machine.memory_format import choose_memory_format
from unet_dist.metrics.confusion import Scores
from unet_dist.metrics.registry import load_metrics, make_metrics
from unet_dist.models.contract import TrainableNetwork, as_module
from unet_dist.prediction.evaluation import evaluate_split
from unet_dist.processes.batch_norm import share_statistics
from unet_dist.processes.group import Processes
from unet_dist.processes.launcher import launcher_accumulation
from unet_dist.terminal import Teller
from unet_dist.tiling.crop_plan import CropPlanner
from unet_dist.tiling.gradient import WindowGradient
from unet_dist.training.parts import Parts


@dataclass(frozen=True)
class Layout:
    """A run as its config and network settle it, before any data is read.

    Attributes:
        given: the objects that a caller brought.
        skeleton: the network without weights, or the one that was brought.
        crops: how its crops are cut.
    """

    config: Config
    given: Given
    skeleton: TrainableNetwork
    crops: CropSizes

    def settled(self, cache: Cache, processes: Processes) -> Layout:
        """The same with what the data and the device settle written into the config."""
        config = self.config.replace(
            num_classes=cache.num_classes,
            in_channels=cache.channels,
            input_size=self.crops.side or "full",
            mixed_precision=processes.precision,
        )
        return replace(self, config=config)


def lay_out(config: Config, given: Given, world_size: int, teller: Teller) -> Layout:
    """Settle the sizes of a run and how its batch is cut.

    Raises:
        ConfigError, SizeError, LocalityError: they cannot be as the config says.
    """
    accumulation = launcher_accumulation(os.environ, config.schedule.gradient_accumulation_steps)
    config = config.replace(gradient_accumulation_steps=accumulation)
    require_loss(config.schedule)
    require_course(config.schedule)
    load_metrics(config.run.metrics)
    skeleton = given.network or build_skeleton(config)
    supervise(skeleton, config)
    crops = settle_crops(config, skeleton, world_size, teller)
    given.refuse_tiles(crops)
    if given.loss is not None and given.loss.sees_whole_images:
        refuse_levels(type(given.loss).__name__, config)
    return Layout(config, given, skeleton, crops)


def place_network(model: TrainableNetwork, layout: Layout, processes: Processes, teller: Teller) -> TrainableNetwork:
    """Put a network on the device, in the memory format and with the normalisation that training there takes."""
    model.to(processes.device)
    wish, device_type = layout.config.run.memory_format, processes.device.type
    module: Any = as_module(model)  # torch does not type `memory_format`
    module.to(memory_format=choose_memory_format(wish, device_type, is_convolutional=model.is_convolutional))
    if model.couples_batch and processes.device.type == "cuda" and processes.world_size > 1:
        return cast(TrainableNetwork, share_statistics(module))
    if model.couples_batch:
        micro = layout.crops.cut.micro_batch_size
        teller.say(f"{model.couples_batch}: the result depends on how the batch is cut (micro-batches of {micro}).")
    return model


def _recipe_of(config: Config, cache: Cache, teller: Teller) -> Recipe | None:
    """What happens to crops on the device.

    Raises:
        ConfigError: colours alone, of images that are not of 8 bits.
    """
    if not is_recipe(config.data.augmentation):
        return None
    name = str(config.data.augmentation)
    recipe = RECIPES[name]
    if cache.dtype == "uint8":
        return recipe
    if recipe.geometry is None:
        raise ConfigError(
            f"augmentation: got {name} for images of {cache.dtype}, expected 8 bits: it changes light and colour. Set paper, "
            "street, strong or trivial, whose rotation and scale take any type; or --value_range, which makes 8 bits."
        )
    teller.say(
        f"augmentation {name}: of {cache.dtype} images rotation, scale and bending; light, blur and noise are of 8 bits"
    )
    return Recipe(recipe.geometry, recolours=False)


def _refuse_augmented_tiles(crops: CropReader, planner: CropPlanner, augmentation: Any) -> None:
    """Refuse to augment crops that no memory need hold: a transform sees a crop as a whole.

    Args:
        augmentation: as the config has it.

    Raises:
        ConfigError: an image that is read by windows has crops of several tiles; names it.
    """
    for index, name in enumerate(crops.samples.ids):
        height, width = crops.output_shape(index)
        if len(planner.plan((height, width))) == 1 or not isinstance(crops.samples.image(index), WindowedImage):
            continue
        named = augmentation if isinstance(augmentation, str) else ", ".join(step["name"] for step in augmentation)
        raise ConfigError(
            f"augmentation: got {named}, which sees a crop as a whole, for {name}, which is read by windows and whose crops of "
            f"{height}x{width} px are cut into tiles of {planner.tile_size}. Remove augmentation (horizontal_flip goes by "
            "windows), set an --input_size of --tile_size or less, or raise --max_pixels, with another --cache_path, so that "
            "TIFF is decoded."
        )


def _balance_of(config: Config, train: CachedSplit) -> ClassBalance | None:
    """Where crops are centred, None by default.

    Raises:
        ConfigError: whole images have no centre, and labels that are read by windows would be searched anew for each crop.
    """
    share = config.data.class_balance
    if not share:
        return None
    if config.schedule.input_size == "full":
        raise ConfigError(
            f"class_balance: got {share} together with input_size full, which has no crops. Remove class_balance, or set "
            "--input_size."
        )
    windowed = [name for index, name in enumerate(train.ids) if train.positions[index] in train.cache.windowed]
    if windowed:
        raise ConfigError(
            f"class_balance: got {share}, expected labels that are decoded, but {windowed[0]} is read by windows. Remove "
            "class_balance, or raise --max_pixels, with another --cache_path."
        )
    return ClassBalance.of(share, train.cache.table["class_counts"][list(train.positions), :-1])


def _mixing_of(config: Config) -> Mixing | None:
    """Which crops show parts of another sample, none by default.

    Raises:
        ConfigError: shares above 1 in all, or whole images, whose shapes differ.
    """
    mixing = Mixing(config.data.cutmix, config.data.classmix)
    if not mixing.cutmix + mixing.classmix:
        return None
    key = "cutmix" if mixing.cutmix else "classmix"
    if mixing.cutmix + mixing.classmix > 1:
        raise ConfigError(
            f"cutmix and classmix: got {mixing.cutmix} and {mixing.classmix}, expected shares of 1 in all: a crop gets one of "
            "them. Lower one."
        )
    if config.schedule.input_size == "full":
        raise ConfigError(
            f"{key}: got {getattr(mixing, key)} together with input_size full, which has no crops. Remove {key}, or set "
            "--input_size."
        )
    return mixing


def _backend(config: Config, model: torch.nn.Module, processes: Processes, teller: Teller) -> str | None:
    """What compiles the network on all processes; None where it stays uncompiled, with a warning if compile was set."""
    backend = None if config.run.debug else choose_backend(config.run.compile, os.environ)
    if backend is None:
        return None
    if any(isinstance(layer, torch.nn.SyncBatchNorm) for layer in model.modules()):
        teller.say(
            "compile: batch normalisation over several GPUs is a collective, which no single graph can hold, so the network runs "
            "uncompiled."
        )
        return None
    teller.say(f"The network is compiled, by {backend}: before the first step, for each shape of its windows.")
    return backend


def _compile_once(parts: Parts) -> None:
    """Compile both passes of the network, by a micro-batch that counts nowhere; where one process fails, none is compiled."""
    compiled = compiled_within(parts.wrapped)
    if compiled is None:
        return
    parts.model.train()
    try:
        WindowGradient(parts.model, compiled, parts.loss).rehearse(parts.shares[1].batches[0], parts.processes.device)
    except RuntimeError as error:
        if not is_out_of_memory(error):  # the first step meets it again, and says what to do
            compiled.leave(in_words(error))
    obstacles = [text for text in parts.processes.gather(compiled.obstacle) if text is not None]
    if obstacles:
        compiled.leave(obstacles[0])


def _open_crops(layout: Layout, cache: Cache, teller: Teller) -> CropReader:
    """What cuts the windows of the training split, and changes them.

    Raises:
        ConfigError: what changes them cannot be made, or sees crops as a whole that are cut into tiles.
    """
    config, given, planner = layout.config, layout.given, layout.crops.planner
    train = cache.split("train")
    augmentation: SampleTransform | None = None
    if given.augmentation is not None:
        augmentation = CheckedTransform(given.augmentation, given.named()["augmentation"])
    elif config.data.augmentation and not is_recipe(config.data.augmentation):
        augmentation = build_transform(config.data.augmentation)
    crops = CropReader(
        train,
        config.schedule.seed,
        window_side=layout.crops.side,
        halo=planner.halo,
        horizontal_flip=config.data.horizontal_flip,
        augmentation=augmentation,
        borders=border_weights_of(config.schedule, cache),
        balance=_balance_of(config, train),
        recipe=_recipe_of(config, cache, teller),
    )
    if augmentation is not None:
        _refuse_augmented_tiles(crops, planner, config.data.augmentation or given.named()["augmentation"])
    return crops


def assemble(
    layout: Layout,
    cache: Cache,
    model: TrainableNetwork,
    optimizer: torch.optim.Optimizer,
    processes: Processes,
    teller: Teller,
    folder: Path,
) -> Parts:
    """Put together what a Trainer runs.

    Args:
        layout: settled.
        model: placed, with the weights to start from.
        folder: the run's.
    """
    config, given, planner, cut = layout.config, layout.given, layout.crops.planner, layout.crops.cut
    schedule = config.schedule
    tile_size = resolve_tile_size(None, model, config)
    loss = given.loss or loss_of(schedule, cache, processes.device)
    require_ids(loss, cache)
    wrapped = processes.prepare(as_module(model), _backend(config, as_module(model), processes, teller), teller.say)
    validation = cache.split("validation")
    crops = replace(_open_crops(layout, cache, teller), zero=tuple(model.mean))
    tiles = choose_tiles(model, window_batch=config.run.window_batch, say=teller.say)
    if reason := reason_of(tiles):
        teller.say(reason)

    def evaluate(is_stopped: Callable[[], bool]) -> Scores | None:
        with processes.autocast():  # once around all: each forward pass would cast the weights anew
            return evaluate_split(tiles, validation, processes, tile_size=tile_size, is_stopped=is_stopped)

    parts = Parts(
        config=config,
        cut=cut,
        processes=processes,
        model=model,
        wrapped=wrapped,
        trim=planner.halo - model.window_sizes.margin,
        optimizer=optimizer,
        loss=loss,
        shares=RunShares(
            crops,
            planner=planner,
            batch_size=schedule.batch_size,
            micro_batch_size=cut.micro_batch_size,
            rank=processes.rank,
            world_size=processes.world_size,
            splits_samples=cut.splits_samples,
            mixing=_mixing_of(config),
        ),
        evaluate=evaluate,
        folder=folder,
        data=cache.identity,
        teller=teller,
        class_names=cache.class_names,
        ignore_index=cache.ignore_index,
        given=given.named(),
        metrics=make_metrics(
            given.metrics or config.run.metrics, cache.num_classes, cache.ignore_index, multi_label=cache.multi_label
        ),
        callbacks=given.callbacks,
    )
    _compile_once(parts)
    return parts
