"""A run, opened again: what its folder holds, as objects.

Owns how the files of a run's folder are found by name. Must not know how they came to be.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from unet_dist.assembly.data_set import open_data
from unet_dist.assembly.opening import load_run
from unet_dist.assembly.run_data import bound, require_same
from unet_dist.assembly.run_folder import CONFIG_FILE, DATA_FILE, METRICS_FILE, SPLITS_FILE, read_run_config
from unet_dist.config.sections import Config
from unet_dist.data.decoded.cache import Cache
from unet_dist.data.sources.pairs import Source
from unet_dist.errors import CheckpointError
from unet_dist.models.contract import Network
from unet_dist.models.weights import WEIGHTS_FILE
from unet_dist.models.wrap import Wrapped
from unet_dist.runs.metrics_log import find_best, read_metrics
from unet_dist.storage.typed import read_json
from unet_dist.terminal import Teller

EVALUATION = "evaluation-{}.json"


class Run:
    """A finished or unfinished run, by its folder. Each file is read when you ask for it.

    >>> run = Run("runs/example")  # doctest: +SKIP
    >>> run.scores["miou"], run.config.schedule.total_steps  # doctest: +SKIP
    (0.41, 6000)

    Args:
        folder: its output_path.
        network: needed if the run trained a plain `nn.Module`: a module of the same architecture, whose weights are replaced in
            a copy. `train` gives its own.
        trust: packages that the folder may import, if its network is somebody else's.

    Attributes:
        folder: the same, as a path.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, network: nn.Module | None = None, trust: Sequence[str] = ()
    ) -> None:
        self.folder = Path(os.path.expanduser(folder))
        self._network = network
        self._trust = list(trust)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @cached_property
    def config(self) -> Config:
        """The resolved config.

        Raises:
            CheckpointError: the folder holds no run, or one whose config is not readable.
        """
        if not (self.folder / CONFIG_FILE).is_file():
            raise CheckpointError(
                f"{self.folder}: got a folder without {CONFIG_FILE}, expected the output_path of a run. Check the path."
            )
        return read_run_config(self.folder)

    @property
    def metrics(self) -> list[dict[str, object]]:
        """The records so far, one row each: step, split (train or validation), then numbers."""
        return read_metrics(self.folder / METRICS_FILE)

    @property
    def scores(self) -> dict[str, object]:
        """The validation of the model in best/: step, miou, pixel_accuracy, iou by class name.

        Raises:
            CheckpointError: there was no validation yet.
        """
        best = find_best([row for row in self.metrics if row.get("split") == "validation"])
        if best is None:
            raise CheckpointError(f"{self.folder}: this run has no validation yet. Resume its training.")
        return dict(best)

    @property
    def splits(self) -> dict[str, list[str]]:
        """The ids of the samples of each split."""
        return read_json(self.folder / SPLITS_FILE, dict[str, list[str]], error=CheckpointError)

    @property
    def data(self) -> dict[str, object]:
        """Its data set in numbers: images, channels, classes and their shares."""
        return self._read(DATA_FILE)

    @property
    def evaluations(self) -> dict[str, dict[str, object]]:
        """What `evaluate` wrote, by split."""
        prefix, suffix = EVALUATION.split("{}")
        paths = sorted(self.folder.glob(EVALUATION.format("*")))
        return {path.name[len(prefix) : -len(suffix)]: self._read(path.name) for path in paths}

    @property
    def model(self) -> Network:
        """The best model, else the last, on the CPU in evaluation mode.

        Raises:
            CheckpointError: there is none yet.
        """
        return self.load_model()

    def load_model(self, device: str | torch.device = "cpu") -> Network:
        """Load the best model, else the last, in evaluation mode.

        Raises:
            CheckpointError: there is none yet.
        """
        _ = self.config
        if self._network is not None:
            name = next((name for name in ("best", "last") if (self.folder / name / WEIGHTS_FILE).is_file()), "best")
            network = copy.deepcopy(self._network)
            return Wrapped.from_pretrained(self.folder / name, network=network, map_location=device)
        return load_run(str(self.folder), torch.device(device), ",".join(self._trust) or None)[0]

    def open_data(self, source: Source | None = None) -> Cache:
        """Open the decoded data set that the run was trained on; decodes it anew if its cache is gone.

        Args:
            source: needed if the run was trained on an object.

        Raises:
            DataError: they are gone, or no longer those that the run was trained on.
        """
        config = self.config if source is not None else bound(self.config, self.folder)
        cache = open_data(config, Teller(speaks=False), source)
        require_same(self.folder, cache)
        return cache

    def _read(self, name: str) -> dict[str, object]:
        return read_json(self.folder / name, dict[str, object], error=CheckpointError)
