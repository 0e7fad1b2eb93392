"""Where a run resumes: its checkpoint, what may have changed since, and putting it back.

Owns which checkpoint is taken, which changed settings and data are allowed and which refused. Knows nothing of steps, and of data
only what tells one data set from another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from unet_dist.assembly.data_set import LAYOUT_KEYS
from unet_dist.config.sections import FREE_KEYS, Config
from unet_dist.errors import CheckpointError, ConfigError
from unet_dist.models.contract import TrainableNetwork, as_module
from unet_dist.processes.group import Processes
from unet_dist.runs.checkpoint import (
    GIVEN,
    Checkpoint,
    list_checkpoints,
    newest_whole,
    read_checkpoint,
    restore_optimizer,
)
from unet_dist.storage.files import recover_folder
from unet_dist.terminal import Teller
from unet_dist.training.optimizer import settle_moments
from unet_dist.training.parts import Progress

WHERE_KEYS = ("data_path", "revision", "image_column", "label_column", *LAYOUT_KEYS)
"""Keys that say where data lie. They may differ if the data are known to be the same."""


def find_checkpoint(config: Config, processes: Processes, teller: Teller, folder: Path) -> Checkpoint | None:
    """The checkpoint to resume from, read by the main process and given to all.

    Raises:
        CheckpointError: resume never, and the folder holds a run; or the named one is not whole, or not this run's.
    """
    checkpoint = None
    if processes.is_main:
        checkpoints = folder / "checkpoints"
        for name in ("best", "last"):
            recover_folder(folder / name)
        if config.run.resume == "never":
            if list_checkpoints(checkpoints):
                raise CheckpointError(
                    f"resume: got never, but {folder} holds a run with {len(list_checkpoints(checkpoints))} checkpoint(s). "
                    "Choose another --output_path, or remove the folder."
                )
        elif config.run.resume == "auto":
            checkpoint = newest_whole(checkpoints, teller.say)
        else:
            checkpoint = _branch_off(config.run.resume, newest_whole(checkpoints, teller.say), folder)
    header = processes.broadcast(None if checkpoint is None else checkpoint.header())
    return checkpoint if processes.is_main or header is None else Checkpoint(model={}, optimizer={}, **header)


def _branch_off(path: str, own: Checkpoint | None, folder: Path) -> Checkpoint:
    """The checkpoint to resume from where one is named: it, until the folder has one that follows from it.

    Raises:
        CheckpointError: it is not whole, or the folder holds a run that does not follow from it.
    """
    if own is not None and own.config.get("resume") == path:
        return own  # the same command, started again
    named = read_checkpoint(Path(path))
    if own is None:  # its best model lies elsewhere: the best of this folder is still to come
        none_yet = {"best_miou": 0.0, "best_present": 0.0, "best_step": 0, "evals_without_better": 0}
        return replace(named, progress={**named.progress, **none_yet})
    if Path(path).resolve() == (folder / "checkpoints" / f"step-{own.step:08d}").resolve():
        return own
    raise CheckpointError(
        f"resume: got {path}, but {folder} holds a run of its own at step {own.step}. Choose another --output_path to branch "
        "off, or set --resume auto to resume the run in the folder."
    )


def answer_changes(
    checkpoint: Checkpoint, config: Config, data: dict[str, Any], given: Mapping[str, str], teller: Teller
) -> bool:
    """Compare a config and its data with the interrupted run's: say what only cuts or rounds the work otherwise, refuse what
    changes it.

    Args:
        data: the data that are read now, as Cache.identity says it.
        given: the objects that were brought, by key, as words.

    Returns:
        Whether the course of the learning rate starts anew where the run stands.

    Raises:
        ConfigError: settings or data differ that change the result, and allow_config_change is not set; or total_steps was
            raised without extend_schedule.
    """
    old = {**Config().flat(), **checkpoint.config}  # what an older release did not know, it did by default
    new = config.flat()
    brought = checkpoint.config.get(GIVEN, {})
    changed = [key for key in new if key not in FREE_KEYS and old[key] != new[key]]
    if "mixed_precision" in changed:  # auto follows the device, and a run may resume on another
        changed.remove("mixed_precision")
        teller.say(
            f"Resuming in another precision: mixed_precision {old['mixed_precision']} -> {new['mixed_precision']}. The result "
            "differs by rounding from that of either alone."
        )
    found = other_data(checkpoint.data, data) if checkpoint.data else []
    moved = [key for key in changed if key in WHERE_KEYS]
    if checkpoint.data and moved and not found:
        changed = [key for key in changed if key not in moved]
        listed = "; ".join(f"{key}: {old[key]!r} -> {new[key]!r}" for key in moved)
        teller.say(f"Resuming with the same data, read from elsewhere: {listed}.")
    is_raised = "total_steps" in changed and new["total_steps"] > old["total_steps"]
    extension = config.run.extend_schedule
    if is_raised and extension is not None:
        changed.remove("total_steps")
    changes = {key: (old[key], new[key]) for key in changed}
    for key in dict.fromkeys([*brought, *given]):  # an object is another part than whatever the config names
        if brought.get(key) != given.get(key):
            changes[key] = brought.get(key, old.get(key)), given.get(key, new.get(key))
    changed = list(changes)
    listed = "; ".join([*(f"{key}: {a!r} -> {b!r}" for key, (a, b) in changes.items()), *found])
    if listed and not config.run.allow_config_change:
        raise ConfigError(
            f"{config.run.output_path} holds a run at step {checkpoint.step} with other {_kinds(changed, found)}: {listed}. "
            f"{_remedy(checkpoint.step, config.schedule.total_steps, is_raised and extension is None, changed, found)}"
        )
    if listed:
        teller.say(f"Resuming with changed {_kinds(changed, found)}: {listed}.")
    if not is_raised or extension is None:
        return False
    course = {
        "continue": f"the learning rate enters the course of {new['total_steps']} steps",
        "restart": f"the learning rate starts a new course over the {config.schedule.total_steps - checkpoint.step} steps left",
    }
    teller.say(f"Resuming with more steps, {old['total_steps']} -> {new['total_steps']}: {course[extension]}.")
    return extension == "restart"


def other_data(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What of the data is not what it was, by split: the number of images, or the digests of their pixels and labels."""
    found = []
    for split in dict.fromkeys([*old, *new]):
        before, now = old.get(split, {}), new.get(split, {})
        if before.get("images", 0) != now.get("images", 0):
            found.append(f"images of {split}: {before.get('images', 0)} -> {now.get('images', 0)}")
            continue
        for kind in ("pixels", "labels"):
            if before.get(kind) != now.get(kind):
                found.append(f"{kind} of {split}: SHA-256 {str(before.get(kind))[:8]} -> {str(now.get(kind))[:8]}")
    return found


def _kinds(changed: list[str], other_data: list[str]) -> str:
    """What differs, in a word or two."""
    return " and ".join(word for word, found in (("settings", changed), ("data", other_data)) if found)


def _remedy(step: int, total_steps: int, asks_for_schedule: bool, changed: list[str], other_data: list[str]) -> str:
    """What to do about changed settings and data, as sentences."""
    sentences = []
    if asks_for_schedule:
        sentences.append(
            f"To train longer, choose the learning rate: --extend_schedule continue (the course of {total_steps} steps, entered "
            f"at step {step}) or --extend_schedule restart (a new course over the {total_steps - step} steps left)."
        )
    sentences.append(f"To resume it as it was, {'put its data back' if other_data else 'give its settings again'}.")
    if not asks_for_schedule or changed != ["total_steps"] or other_data:
        new = "the data there now" if other_data else "the new settings"
        sentences.append(f"To resume it with {new}, set --allow_config_change true.")
    return " ".join([*sentences, "To start another run, set another --output_path."])


def restore(
    checkpoint: Checkpoint, model: TrainableNetwork, optimizer: torch.optim.Optimizer, processes: Processes
) -> Progress:
    """Put a checkpoint into the model and its optimizer: read by the main process, copied to the others."""
    if processes.is_main:
        try:
            model.load_state_dict(checkpoint.model)
        except RuntimeError as error:
            raise CheckpointError(f"The checkpoint of step {checkpoint.step} is of another network: {error}") from None
        restore_optimizer(as_module(model), optimizer, checkpoint.optimizer)
    moments: dict[str, list[str]] = {}
    for moment, _, name in (key.partition(".") for key in processes.broadcast(sorted(checkpoint.optimizer))):
        moments.setdefault(name, []).append(moment)
    trained = {name: parameter for name, parameter in as_module(model).named_parameters() if parameter.requires_grad}
    if not processes.is_main:
        for name, parameter in trained.items():
            optimizer.state[parameter] = {
                moment: torch.zeros((), device=parameter.device) if moment == "step" else torch.zeros_like(parameter)
                for moment in moments.get(name, [])
            }
    processes.copy_from_main(model.state_dict().values())
    for name, parameter in trained.items():
        processes.copy_from_main(optimizer.state[parameter][moment] for moment in moments.get(name, []))
    settle_moments(optimizer)
    try:
        return Progress(**checkpoint.progress)
    except TypeError as error:
        raise CheckpointError(
            f"The checkpoint of step {checkpoint.step} holds another kind of progress: {error}. It is of another release, or "
            "damaged: remove its folder to take the one before."
        ) from None
