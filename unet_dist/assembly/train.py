"""Training as a function: from a config, and parts of your own, to a finished run.

Owns what surrounds a run: its processes, the lock on its folder, the wish to stop, and the last line. The command is this and
nothing else, so a script or a notebook gives the same bits.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from torch import nn

from unet_dist.assembly.given import Given, SampleTransform
from unet_dist.assembly.introduction import introduce
from unet_dist.assembly.opening import open_for, teller_of
from unet_dist.assembly.run import Run
from unet_dist.assembly.starting import Start, start
from unet_dist.config.sections import Config
from unet_dist.data.sources.pairs import Source
from unet_dist.debug.mode import debug, debugging_config
from unet_dist.errors import LaunchError
from unet_dist.losses.contract import Loss
from unet_dist.metrics.registry import Metric
from unet_dist.models.registry import package_of
from unet_dist.processes.group import Processes
from unet_dist.processes.stopping import StopWish
from unet_dist.runs.trackers import refused_by, tracker_settings
from unet_dist.storage.lock import lock_run
from unet_dist.training.parts import Callback
from unet_dist.training.trainer import Trainer
from unet_dist.wording import duration


def train(
    config: Config,
    *,
    model: nn.Module | None = None,
    loss: Loss | None = None,
    data: str | os.PathLike[str] | Source | None = None,
    augmentation: SampleTransform | None = None,
    metrics: Sequence[Metric] = (),
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Train a config, or resume the run in its folder. Objects of your own may replace parts that the config names.

    Under a launcher (accelerate launch, torchrun, srun, notebook_launcher), call it in every process. Without one it trains on
    one process. `unet-dist train` calls this function: the same config gives the same bits.

    Args:
        config: the keys of the command line.
        model: the network to train, with the weights to start from: one of this package, or any `nn.Module` from images
            (N, C, H, W) to logits (N, K, h, w). Every process makes its own; all start from the weights of the first.
        loss: a sum over pixels, as `unet_dist.losses.contract` describes it.
        data: a path, a hub id, or a source of pairs as `unet_dist.data.sources.pairs` describes it.
        augmentation: changes a training crop, as a function of a seed.
        metrics: functions of the confusion matrix (K, K) int64 of each validation, named by their `__name__`, in place of those
            of the config.
        callbacks: called after steps, validations and the end.

    Returns:
        The run: its folder, its scores, its best model.

    Raises:
        UnetDistError: a mistake that you can mend, in a sentence; ConfigError, DataError, SizeError, LocalityError,
            CheckpointError and LaunchError before the first step, DivergedError and StepTooLargeError later. On several
            processes it is printed and ends them all.

    Example:
        >>> from unet_dist import Config, train
        >>> run = train(
        ...     Config(
        ...         data_path="synthetic", synthetic_images=6, synthetic_size="48x80", depth=1, base_channels=2,
        ...         input_size=40, batch_size=2, total_steps=4, eval_steps=2, trackers=[], output_path="runs/example",
        ...     )
        ... )  # doctest: +ELLIPSIS
        2...
        >>> run
        Run('runs/example')
        >>> [row["step"] for row in run.metrics if row["split"] == "validation"]
        [2, 4]
        >>> run.model.num_classes
        35
    """
    given = Given(model, loss, data, augmentation, tuple(metrics), tuple(callbacks))
    config = given.settle(config)
    if config.run.debug:
        config = debugging_config(config)
    folder = Path(config.run.output_path)
    with open_for(config) as processes:
        if config.run.debug and processes.world_size > 1:
            raise LaunchError(
                f"debug: got {processes.world_size} processes, expected one. Start it without a launcher: unet-dist train --debug."
            )
        with lock_run(folder) if processes.is_main else nullcontext():
            _run(config, given, processes)
    package = package_of(config.model.model)
    return Run(folder, network=model if given.is_plain else None, trust=[package] if package else [])


def _run(config: Config, given: Given, processes: Processes) -> None:
    """Train, or look at the run in debug mode.

    A function of its own, so that network and optimizer are gone when the processes part: taken down under the
    gradients' averaging, gloo left one of two processes waiting for ever.
    """
    started = start(config, given, processes, teller_of(processes))
    introduce(started.parts, started.cache, started.progress)
    if config.run.debug:
        debug(started.parts, started.restore, started.progress)
    else:
        _fit(started)


def _fit(started: Start) -> None:
    """Run to the end, or until the processes agree to stop."""
    parts, processes = started.parts, started.parts.processes
    if processes.is_main:
        started.describe()
    folder = parts.folder
    _start_trackers(started)
    trainer = Trainer(parts, started.progress)
    with StopWish(folder, watches_file=processes.is_main) as wish:
        outcome = trainer.fit(wish)
    if not outcome:
        done = trainer.progress
        parts.teller.say(
            f"Finished at step {done.step} in {duration(done.seconds)}: best mean IoU of labelled classes "
            f"{done.best_present:.4f} at step {done.best_step}. "
            f"Models: {folder / 'best'} and {folder / 'last'}. Next: unet-dist evaluate {shlex.quote(str(folder))}"
        )


def _start_trackers(started: Start) -> None:
    """Start the trackers, or continue their records of this run.

    Raises:
        ConfigError: one of them cannot start, for want of a key or of a network.
    """
    parts, names = started.parts, started.parts.config.run.trackers
    # TensorBoard keeps a config as a run of its own beside the curves; the run's folder has it in config.yaml.
    settings = None if names == ["tensorboard"] else {k: str(v) for k, v in parts.config.flat().items()}
    told = tracker_settings(names, parts.folder, started.progress.step) if parts.processes.is_main else {}
    try:
        parts.processes.accelerator.init_trackers("tensorboard", config=settings, init_kwargs=told)
    except Exception as error:  # whatever somebody else's tracker raises
        raise refused_by(names, error) from error
