"""What a command opens first: the processes of a config, the terminal, and the model of a finished run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from unet_dist.assembly.run_data import bound
from unet_dist.assembly.run_folder import CONFIG_FILE, METRICS_FILE, read_run_config
from unet_dist.config.metrics import METRICS
from unet_dist.config.sections import Config, Precision
from unet_dist.data.sources.registry import SOURCES, is_part
from unet_dist.errors import CheckpointError, ConfigError
from unet_dist.machine.arithmetic import choose_algorithms
from unet_dist.models.contract import Network, TrainableNetwork, as_module
from unet_dist.models.ensemble import Ensemble, members_of
from unet_dist.models.onnx_model import OnnxModel
from unet_dist.models.registry import load_model
from unet_dist.processes.group import Processes, open_processes
from unet_dist.processes.precision import precision_line
from unet_dist.registry import Registry, parse_word, require_trusted, split_words
from unet_dist.runs.checkpoint import average_weights
from unet_dist.runs.metrics_log import find_best, read_metrics, score_of
from unet_dist.terminal import Teller


def open_for(config: Config) -> Any:
    """Join the processes as a config says."""
    run = config.run
    choose_algorithms(tries=run.cudnn_benchmark)
    return open_processes(
        mixed_precision="no" if run.dtype == "float64" else run.mixed_precision,
        expected_processes=run.expected_processes,
        collective_timeout_s=run.collective_timeout_s,
        deterministic="warn" if run.debug else run.deterministic,
        tf32=run.tf32,
        trackers=run.trackers,
        project_dir=run.output_path,
    )


def load_run(
    path: str, device: torch.device, trust: str | None = None, average: str | None = None
) -> tuple[TrainableNetwork | OnnxModel, Config | None, Path | None]:
    """Load the model of RUN: a run's folder (its best, else its last), a model folder or a hub id.

    Args:
        trust: packages, separated by commas, whose code the folder may name.
        average: last:5 averages the weights of a run's five newest checkpoints, in place of its best model.

    Returns:
        The model in evaluation mode, the run's config and its folder (None where RUN is no run's folder).

    Raises:
        CheckpointError: there is no model, or there are fewer checkpoints.
        ConfigError: an average, and the folder is none of a run.
    """
    folder, trusted = Path(path), split_trust(trust)
    if not (folder / CONFIG_FILE).is_file():
        if average is not None:
            raise ConfigError(
                f"average: got {average} for {path}, which has no checkpoints. Expected the folder of a run."
            )
        return load_model(path, device=device, trust=trusted), None, None
    config = read_run_config(folder)
    for name in ("best", "last"):
        if (folder / name / "config.json").is_file():
            model = load_model(folder / name, device=device, trust=trusted)
            if average is not None:
                as_module(model).load_state_dict(
                    average_weights(folder / "checkpoints", int(average.removeprefix("last:")))
                )
            return model, config, folder
    raise CheckpointError(
        f"{folder}: this run has neither best/ nor last/ yet: it stopped before its first validation. Run its train command again."
    )


def validated_best(folder: Path | None) -> Mapping[str, Any] | None:
    """The record of the validation that best/ is of; None where RUN is no run's folder or has only its last."""
    if folder is None or not (folder / "best").is_dir():
        return None
    return find_best([r for r in read_metrics(folder / METRICS_FILE) if r.get("split") == "validation"])


def describe_taken(word: str, average: str | None = None) -> str | None:
    """Say which model of each run is taken, its step and score; None where the word names a model folder or a hub id alone."""
    found = []
    for folder in map(Path, members_of(word)):
        if not (folder / CONFIG_FILE).is_file():
            continue
        if average is not None:
            found.append(f"{folder}, the mean of its {average.removeprefix('last:')} newest checkpoints")
        elif best := validated_best(folder):
            found.append(
                f"{folder / 'best'}, step {best['step']:,}, validation mean IoU of labelled classes {score_of(best):.4f}"
            )
        elif (folder / "best").is_dir():
            found.append(f"{folder / 'best'}, of a step that no record tells")
        else:
            steps = [int(record["step"]) for record in read_metrics(folder / METRICS_FILE)]
            found.append(f"{folder / 'last'}{f', step {steps[-1]:,}' if steps else ''}, without a validation")
    return f"{'Model' if len(found) == 1 else 'Models'}: {'; '.join(found)}" if found else None


def describe_opened(
    word: str | None, network: Network, *, average: str | None, wish: Precision, precision: str
) -> list[str]:
    """Say which models are taken, and the precision where it is a choice of ours; onnxruntime computes in the file's own type.

    Args:
        word: what names the models; None for a network of the caller's.
        wish, precision: what --mixed_precision asks for, and what it settles on.
    """
    taken = None if word is None else describe_taken(word, average)
    members = network.members if isinstance(network, Ensemble) else [network]
    if not all(isinstance(member, OnnxModel) for member in members):
        told = precision_line(wish, precision)
    elif wish in ("auto", "no"):
        told = None
    else:
        told = f"--mixed_precision {wish} has no effect: onnxruntime computes in the type that the file states."
    return [line for line in (taken, told) if line]


def load_network(
    word: str, device: torch.device, trust: str | None = None, average: str | None = None
) -> tuple[Network, Config | None, Path | None]:
    """Load what predicts: RUN, as `load_run` does, or RUN+RUN+RUN, which are averaged.

    Returns:
        The network in evaluation mode. Of an ensemble the first run's config, and no folder.

    Raises:
        CheckpointError: there is no model.
        ConfigError: the runs do not go together.
    """
    loaded = [load_run(member, device, trust, average) for member in members_of(word)]
    network, config, folder = loaded[0]
    if len(loaded) == 1:
        return network, config, folder
    ensemble: Network = Ensemble([member for member, _, _ in loaded]).eval()
    return ensemble, None if config is None else bound(config, folder), None


def split_trust(trust: str | None) -> list[str]:
    """The packages of `--trust one,other`."""
    return [] if trust is None else trust.split(",")


def require_data_trusted(config: Config, trust: str | None) -> None:
    """Refuse to import the data set that a run's folder names, unless the user trusts its package.

    Raises:
        CheckpointError: it is not among them.
    """
    if is_part(config.data.data_path):
        _require_part_trusted(SOURCES, config.data.data_path, trust)


def require_metrics_trusted(config: Config, trust: str | None) -> None:
    """Refuse to import the metrics that a run's folder names, unless they are ours or the user trusts their packages.

    Raises:
        CheckpointError: one is not among them.
    """
    for word in split_words(config.run.metrics):
        _require_part_trusted(METRICS, word, trust)


def _require_part_trusted(registry: Registry[Any], text: str, trust: str | None) -> None:
    name = parse_word(registry.key, text).name
    if not registry.is_own(name):
        require_trusted(registry.find(name), split_trust(trust), f"the run's {CONFIG_FILE}")


def teller_of(processes: Processes) -> Teller:
    """A teller that speaks on the main process only."""
    return Teller(speaks=processes.is_main)
