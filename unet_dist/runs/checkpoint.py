"""Checkpoints: folders of safetensors and JSON that are whole or absent.

Owns their layout, their digests, which one is resumed and which are kept. Nothing is unpickled. Must not know how a state
is made or what it means: it sees names, tensors and JSON.

    checkpoints/step-00000100/model.safetensors      the parameters and buffers
                              optimizer.safetensors  its moments, by parameter name
                              state.json             version, step, config, progress, data, a digest of each file and of itself
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unet_dist.errors import CheckpointError, DataError
from unet_dist.runs.landing import Landing
from unet_dist.storage.files import digest, recover_all, write_whole, write_whole_folder
from unet_dist.storage.held import held, remove
from unet_dist.storage.typed import read_json
from unet_dist.wording import counted

VERSION = 1
MODEL_FILE, OPTIMIZER_FILE, STATE_FILE = "model.safetensors", "optimizer.safetensors", "state.json"
GIVEN = "given"
"""Beside the keys of a config: the objects that the caller brought, by key, as words."""
_NAME = re.compile(r"step-(\d{8,})")


_DAMAGED = "It is damaged, or was copied in part."


class _StateOfAll(TypedDict):
    version: int
    step: int
    config: dict[str, object]
    progress: dict[str, object]
    sha256: dict[str, str]


class _State(_StateOfAll, total=False):
    """state.json; those of the first releases say nothing of the data."""

    data: dict[str, dict[str, object]]


@dataclass(frozen=True)
class Checkpoint:
    """A state at a step boundary.

    Attributes:
        step: optimizer steps done.
        model: parameters and buffers by name.
        optimizer: moments and counts by "moment.parameter name".
        config: the run's flat config.
        progress: what else the run must remember, as JSON.
        data: what the run reads, as Cache.identity says it; empty in those of the first releases.
    """

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    config: dict[str, Any]
    progress: dict[str, Any]
    data: dict[str, Any] = field(default_factory=dict)

    def header(self) -> dict[str, Any]:
        """What JSON holds of it: all but the tensors."""
        return {"step": self.step, "config": self.config, "progress": self.progress, "data": self.data}

    def on_host(self) -> Checkpoint:
        """A copy in host memory that later steps do not change."""
        copy, arrive = self.landed(Landing())
        arrive()
        return copy

    def landed(self, landing: Landing) -> tuple[Checkpoint, Callable[[], object]]:
        """The same, and what waits until the values are there."""
        tensors = {(kind, name): t for kind in ("model", "optimizer") for name, t in getattr(self, kind).items()}
        copies, arrive = landing.take({"/".join(key): t for key, t in tensors.items()})
        both = {
            kind: {name: copies[f"{kind}/{name}"] for at, name in tensors if at == kind}
            for kind in ("model", "optimizer")
        }
        return replace(self, model=both["model"], optimizer=both["optimizer"]), arrive


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint below `folder` (a run's checkpoints/); returns its path once it stands.

    Args:
        checkpoint: as `on_host` gives it: weights that are channels last could not be written.

    Raises:
        CheckpointError: it could not be written.
    """
    path = folder / f"step-{checkpoint.step:08d}"

    def fill(beside: Path) -> None:
        save_file(checkpoint.model, beside / MODEL_FILE)
        save_file(checkpoint.optimizer, beside / OPTIMIZER_FILE)
        state: dict[str, Any] = {
            "version": VERSION,
            "step": checkpoint.step,
            "config": checkpoint.config,
            "progress": checkpoint.progress,
            "data": checkpoint.data,
            "sha256": {name: digest(beside / name) for name in (MODEL_FILE, OPTIMIZER_FILE)},
        }
        state["sha256"][STATE_FILE] = state_digest(state)
        write_whole(beside / STATE_FILE, json.dumps(state, indent=1).encode())

    with write_errors_named(path):
        write_whole_folder(path, fill)
    return path


@contextmanager
def write_errors_named(path: Path) -> Iterator[None]:
    """Name the folder that could not be written: the disk is full, or the folder is not ours.

    Raises:
        CheckpointError: a refusal of the system, or safetensors' own error, inside.
    """
    try:
        yield
    except DataError as error:
        raise CheckpointError(f"{error} Earlier checkpoints are untouched.") from error
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} could not be written: {getattr(error, 'strerror', None) or error}. Make room or mend the folder, then "
            "start the same command again. Earlier checkpoints are untouched."
        ) from error


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint.

    Raises:
        CheckpointError: missing, damaged (names the file) or of another version.
    """
    for name in (STATE_FILE, MODEL_FILE, OPTIMIZER_FILE):
        if not (path / name).exists():
            raise CheckpointError(f"{path}: not a whole checkpoint: {name} is missing.")
    state = read_json(path / STATE_FILE, _State, error=CheckpointError, remedy=_DAMAGED)
    try:
        version = state["version"]
        if version != VERSION:
            raise CheckpointError(
                f"{path}: got version {version}, expected {VERSION}. Resume it with the release that wrote it."
            )
        digests = state["sha256"]
        if len(digests) > 2 and digests[STATE_FILE] != state_digest(state):  # the first checkpoints had none of it
            raise CheckpointError(f"{path / STATE_FILE}: damaged: its SHA-256 is not the one it names.")
        for name in (MODEL_FILE, OPTIMIZER_FILE):
            if digest(path / name) != digests[name]:
                raise CheckpointError(f"{path / name}: damaged: its SHA-256 is not the one in {STATE_FILE}.")
        return Checkpoint(
            step=state["step"],
            model=load_file(path / MODEL_FILE),
            optimizer=load_file(path / OPTIMIZER_FILE),
            config=state["config"],
            progress=state["progress"],
            data=state.get("data", {}),
        )
    except (OSError, ValueError, KeyError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"{path}: damaged: {type(error).__name__}: {error}") from None


def average_weights(folder: Path, count: int) -> dict[str, Tensor]:
    """The mean of the weights of the newest checkpoints below a run's checkpoints/, summed in float64; what counts is the newest's.

    Raises:
        CheckpointError: there are fewer, or one is damaged.
    """
    paths = list_checkpoints(folder)[-count:]
    if len(paths) < count:
        raise CheckpointError(
            f"{folder} holds {counted(len(paths), 'checkpoint')}, expected {count} to average. Train with --keep_checkpoints "
            f"{count} or more, or average fewer."
        )
    sums: dict[str, Tensor] = {}
    for path in paths:
        weights = read_checkpoint(path).model
        for name, tensor in weights.items():
            if tensor.is_floating_point():
                sums[name] = sums.get(name, 0) + tensor.double() / count
    return {name: sums[name].to(tensor.dtype) if name in sums else tensor for name, tensor in weights.items()}


def state_digest(state: Mapping[str, Any]) -> str:
    """The SHA-256 of all that state.json says but this."""
    said = {**state, "sha256": {name: value for name, value in state["sha256"].items() if name != STATE_FILE}}
    read_back = json.loads(json.dumps(said))  # keys are words, as they are when read
    return hashlib.sha256(json.dumps(read_back, sort_keys=True).encode()).hexdigest()


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints below a run's checkpoints/, oldest first."""
    if not folder.is_dir():
        return []
    found = ((path, _NAME.fullmatch(path.name)) for path in folder.iterdir() if path.is_dir())
    return [path for _, path in sorted((int(match[1]), path) for path, match in found if match)]


def newest_whole(folder: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole; a damaged one is named and the next older one taken.

    What a kill cut in two is mended first.

    Raises:
        CheckpointError: there are some, and every one is damaged.
    """
    recover_all(folder, "step-*")
    paths = list_checkpoints(folder)
    for path in reversed(paths):
        try:
            return read_checkpoint(path)
        except CheckpointError as error:
            say(f"{error} Taking the next older one.")
    if paths:
        raise CheckpointError(
            f"{folder}: got {len(paths)} checkpoint(s), all damaged; expected a whole one. Start anew with another --output_path."
        )
    return None


class CheckpointWriter:
    """Writes checkpoints behind the training, one at a time, and removes those that are no longer kept.

    Args:
        folder: a run's checkpoints/.
        keep: newest checkpoints to keep.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder = folder
        self._keep = keep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._landing = Landing()

    def write(self, checkpoint: Checkpoint) -> None:
        """Copy the state to the host and write it behind.

        Raises:
            CheckpointError: the previous write failed.
        """
        self.wait()
        self._pending = self._thread.submit(self._write, *checkpoint.landed(self._landing))

    def on_host(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Bring tensors of a GPU to the host by the buffer of the checkpoints, once the last of them stands.

        Returns:
            Tensors of their own memory, contiguous; one for those that are one tensor under several names.

        Raises:
            CheckpointError: the previous write failed.
        """
        self.wait()
        first: dict[tuple[int, torch.Size], str] = {}
        names = {name: first.setdefault((t.data_ptr(), t.shape), name) for name, t in tensors.items()}
        copies, arrive = self._landing.take({name: tensors[name] for name in first.values()})
        arrive()
        own = {name: copy.clone() for name, copy in copies.items()}
        return {name: own[at] for name, at in names.items()}

    def wait(self) -> None:
        """Return once the last write stands.

        Raises:
            CheckpointError: it failed.
        """
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def close(self) -> None:
        """Wait for the last write and end the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def _write(self, checkpoint: Checkpoint, arrive: Callable[[], object]) -> None:
        arrive()
        write_checkpoint(self._folder, checkpoint)
        with suppress(OSError), held(self._folder) as folder:
            for path in list_checkpoints(self._folder)[: -self._keep]:
                remove(path.name, folder)


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by "moment.parameter name"; empty before its first step."""
    return {
        f"{moment}.{name}": value
        for name, parameter in model.named_parameters()
        for moment, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what optimizer_tensors gave.

    Raises:
        CheckpointError: a parameter of the model has no moments in it, or another shape.
    """
    for name, parameter in model.named_parameters():
        state = {key.partition(".")[0]: value for key, value in tensors.items() if key.partition(".")[2] == name}
        if not state and tensors and parameter.requires_grad:
            raise CheckpointError(
                f"{OPTIMIZER_FILE}: got no state for parameter {name}, expected some. It is of another model."
            )
        for moment, value in state.items():
            expected = parameter.shape if value.ndim else value.shape
            if value.shape != expected:
                raise CheckpointError(
                    f"{OPTIMIZER_FILE}: {moment}.{name}: got shape {tuple(value.shape)}, expected {tuple(expected)}. "
                    "It is of another model."
                )
            # A copy takes the parameter's memory format, on which the order of later summation could depend.
            like = torch.empty_like(parameter) if value.ndim else torch.empty((), device=parameter.device)
            state[moment] = like.copy_(value)
        if parameter.requires_grad:
            optimizer.state[parameter] = state
