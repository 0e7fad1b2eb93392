"""One setting to be measured by `bench`: a config with its data, network, training parts and prediction.

Owns how a config becomes what the benchmark times. The training parts are those that `train` runs; the network that predicts is
saved and loaded as `predict` finds it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import torch

from unet_dist.assembly.data_set import open_data
from unet_dist.assembly.given import Given
from unet_dist.assembly.network import architecture, build_network, simulated
from unet_dist.assembly.opening import load_run
from unet_dist.assembly.sizes import resolve_tile_size
from unet_dist.assembly.training import Layout, assemble, lay_out, place_network
from unet_dist.benchmark.ceilings import Ceilings
from unet_dist.benchmark.inference import Prediction, image_pixels, write_images
from unet_dist.benchmark.layers import MeasuredLayer, time_layers
from unet_dist.benchmark.results import Amounts, Result, figures_of
from unet_dist.benchmark.step import endless, flops_of, pixels_of
from unet_dist.benchmark.subject import Limits, Round, RunSubject
from unet_dist.benchmark.timing import affordable
from unet_dist.config.sections import Config
from unet_dist.data.batches.shares import RunShares
from unet_dist.data.decoded.cache import Cache
from unet_dist.models.contract import as_module
from unet_dist.models.registry import package_of
from unet_dist.planner.simulation import SimulatedRun, training_flops, training_peak
from unet_dist.processes.group import Processes
from unet_dist.terminal import Teller
from unet_dist.tiling.gradient import WindowGradient
from unet_dist.training.optimizer import build_optimizer
from unet_dist.training.parts import Parts

_PREDICTED_PX, _MOST_IMAGES = 1080 * 1920, 8
"""Pixels that a process predicts, in whole images, and how many of them at most: one of 1080x1920, or 8 of 360x480."""

LAYER_PASSES = 5
_LAYER_SHARE = 0.15
"""Of the seconds of a setting, at most, for its layers."""


class Setting:
    """A config, ready to be measured; `open_setting` makes one.

    Args:
        layout: settled.
        parts: of an endless run.
        model_folder: where its network was saved before any step; None predicts nothing.
        folder: scratch of this setting, the same for all processes.
        name: for the tables.

    Attributes:
        precision: in which products are computed, in words.
        title: the subject, in a line.
        image_shape: of the images predicted; None where none are.
    """

    def __init__(
        self, layout: Layout, cache: Cache, parts: Parts, folder: Path, *, model_folder: Path | None, name: str
    ) -> None:
        self.layout, self.cache, self.parts = layout, cache, parts
        self.config = layout.config
        self._model_folder = model_folder
        self.precision = parts.config.run.dtype if parts.processes.precision == "no" else parts.processes.precision
        prediction = None if model_folder is None else self._prediction(folder, model_folder)
        self.subject = RunSubject(name, parts, prediction, folder)
        self.image_shape = None if prediction is None else prediction.image_shape
        self.amounts = self._amounts()

    def alone(self, folder: Path, *, name: str) -> Setting:
        """The same on one process that is by itself, with as much work as each one has now.

        Where samples are split over the processes, it has all of it.
        """
        parts, cut = self.parts, self.layout.crops.cut
        schedule = parts.config.schedule
        batch_size = schedule.batch_size if cut.splits_samples else schedule.batch_size // cut.world_size
        shares = RunShares(
            parts.shares.crops,
            planner=parts.shares.planner,
            batch_size=batch_size,
            micro_batch_size=cut.micro_batch_size,
            rank=0,
            world_size=1,
            splits_samples=cut.splits_samples,
        )
        crops = replace(self.layout.crops, cut=replace(cut, world_size=1))
        layout = replace(self.layout, config=parts.config.replace(batch_size=batch_size), crops=crops)
        lonely = replace(
            parts,
            config=layout.config,
            cut=crops.cut,
            processes=parts.processes.alone(),
            wrapped=parts.wrapped.module,  # mixed precision and the compiler are within; the gradients are not averaged
            shares=shares,
        )
        return Setting(layout, self.cache, lonely, folder, model_folder=self._model_folder, name=name)

    @property
    def title(self) -> str:
        """Name the subject of the measurement in one line."""
        batch = self.subject.bare.share.batches[0]
        number, height, width = batch.shape
        options, cut = architecture(self.config), self.layout.crops.cut
        shape = (
            f" {options['base_channels']} wide, depth {options['depth']}, norm {options['norm']}"
            + f", stem stride {options['stem_stride']}" * (options["stem_stride"] > 1)
            if "depth" in options
            else ""
        )
        return (
            f"{type(self.parts.model).__name__}{shape}, "
            f"{self.precision}; batch {self.config.schedule.batch_size} on {cut.world_size} process"
            f"{'es' * (cut.world_size > 1)}, {number} windows of {height}x{width} at a time"
        )

    def _prediction(self, folder: Path, model_folder: Path) -> Prediction:
        """A prediction of images of the validation split, as many for each process.

        One small image would be a single batch, of which nothing can be read or written beside the computing: what `predict`
        does with a folder is another thing.
        """
        processes, config = self.parts.processes, self.config
        images = folder / "images"
        if processes.is_main:
            images.mkdir(parents=True)
            samples = self.cache.split("validation")
            height, width = image_pixels(samples.image(0)).shape[:2]
            count = processes.world_size * max(1, min(_MOST_IMAGES, _PREDICTED_PX // (height * width)))
            write_images(images, [image_pixels(samples.image(i % len(samples))) for i in range(count)])
        processes.barrier()
        model, _, _ = load_run(str(model_folder), processes.device, package_of(config.model.model))
        return Prediction(
            model,
            sorted(images.iterdir()),
            processes,
            folder / "predictions",
            tile_size=resolve_tile_size(None, model, config),
            window_batch=config.run.window_batch,
            timeout_s=config.run.collective_timeout_s,
        )

    def _amounts(self) -> Amounts:
        parts = self.parts
        share = self.subject.bare.share
        simulation = self._simulated
        if "checkpoint_activations" in dict(simulation.options):
            simulation = simulation.with_option("checkpoint_activations", False)
        count = lru_cache(partial(training_flops, simulation))
        return Amounts(
            crops=self.config.schedule.batch_size,
            window_pixels=sum(parts.processes.gather(pixels_of(share))),
            flops=max(parts.processes.gather(flops_of(share, count))),
            share_crops=self.config.schedule.batch_size / parts.processes.world_size,
            image_pixels=self.subject.prediction.pixels if self.subject.prediction else 0,
            images=self.subject.prediction.num_images if self.subject.prediction else 0,
            world_size=parts.processes.world_size,
        )

    @property
    def _simulated(self) -> SimulatedRun:
        processes = self.parts.processes
        return simulated(
            self.config,
            channels=self.cache.channels,
            num_classes=self.cache.num_classes,
            device_type=processes.device.type,
            precision=processes.precision,
        )

    def predicted_bytes(self, *, has_workspace: bool = True) -> int:
        """What `plan` predicts for the tensors of a step; without the workspace of convolutions where there is none."""
        share = self.subject.bare.share
        number, height, width = max((batch.shape for batch in share.batches), key=math.prod)
        keeps = self.parts.processes.world_size > 1 or len(share.batches) > 1
        simulation = replace(self._simulated, trim=self.parts.trim, keeps_gradients=keeps, has_workspace=has_workspace)
        return training_peak(simulation, number, (height, width)).total_bytes

    def result(self, rounds: Sequence[Round]) -> Result:
        """What the rounds say."""
        subject = self.subject
        return Result(
            subject.name,
            figures_of(rounds, self.amounts),
            self.amounts,
            rounds=len(rounds),
            steps=subject.steps,
            peak_bytes=subject.peak_bytes or None,
            predicted_bytes=self.predicted_bytes(),
        )

    def layers(self, ceilings: Ceilings, limits: Limits) -> list[MeasuredLayer]:
        """Time a forward and a backward pass of one micro-batch, layer by layer."""
        parts, batch = self.parts, self.subject.bare.share.batches[0]
        gradient = WindowGradient(
            parts.model, parts.model, parts.loss, trim=parts.trim, seed=parts.config.schedule.seed
        )
        scale = torch.ones_like(self.subject.bare.divisor)

        def forward_and_backward() -> None:
            # A loss of two passes is taken as that of these windows alone: one pass is measured.
            gradient.add(
                batch.windows, batch.labels, batch.keys, scale=scale, borders=batch.borders, totals=lambda own: own
            )

        step_s = self.subject.bare.seconds(1)
        passes = affordable(LAYER_PASSES, step_s / len(self.subject.bare.share.batches), _LAYER_SHARE * limits.seconds)
        passes = parts.processes.broadcast(passes)
        layers = time_layers(
            as_module(parts.model), forward_and_backward, parts.processes.device, ceilings, passes=passes
        )
        parts.optimizer.zero_grad(set_to_none=False)
        return layers


def open_setting(
    config: Config, processes: Processes, folder: Path, teller: Teller, *, name: str, predicts: bool = True
) -> Setting:
    """Make a setting of a config as the user said it.

    Args:
        folder: scratch of this setting, the same for all processes.
        name: for the tables.
        predicts: whether an image is predicted, too; not without exact tiles, with a warning.
    """
    layout = lay_out(endless(config), Given(), processes.world_size, teller)
    cache = open_data(layout.config, teller)
    model = build_network(layout.config, cache)
    layout = layout.settled(cache, processes)
    if processes.is_main:
        folder.mkdir(parents=True)
        model.save_pretrained(folder / "model")
    model = place_network(model, layout, processes, teller)
    optimizer = build_optimizer(as_module(model), layout.config.schedule)
    parts = assemble(layout, cache, model, optimizer, processes, teller, folder)
    if predicts and parts.model.locality is None:
        teller.say(f"Prediction is not measured: {parts.model.locality_obstacle}, so that no exact tiles exist.")
        predicts = False
    return Setting(layout, cache, parts, folder, model_folder=folder / "model" if predicts else None, name=name)
