"""Proves that the library is the command: the same bits from a script, from a notebook and on several processes; and that objects
take the place of what a config names.
"""

from __future__ import annotations

import doctest
import gc
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import unet_dist.assembly.train
from tests.distributed.processes import ROOT, quiet_environment
from tests.faults.runs import end_of
from tests.ports import free_ports
from unet_dist import Callback, Config, Run, UNet, train
from unet_dist.assembly.starting import Start
from unet_dist.data.batches.label_counts import LabelCounts
from unet_dist.data.sources.synthetic import SyntheticSource
from unet_dist.errors import CheckpointError, ConfigError
from unet_dist.losses.pixelwise import CrossEntropy
from unet_dist.metrics.confusion import Scores
from unet_dist.processes import group
from unet_dist.tiling.geometry import Locality
from unet_dist.training.parts import Progress
from unet_dist.training.trainer import Trainer

TINY: dict[str, Any] = {
    "synthetic_images": 6, "synthetic_size": "48x80", "depth": 1, "base_channels": 2, "input_size": 40, "batch_size": 2,
    "total_steps": 4, "eval_steps": 2, "log_steps": 2, "trackers": [], "mixed_precision": "no", "norm": "weight",
}  # fmt: skip
DATA: dict[str, Any] = {k: v for k, v in TINY.items() if not k.startswith("synthetic")}
NETWORK: dict[str, Any] = {k: v for k, v in TINY.items() if k not in ("depth", "base_channels", "norm")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where all runs of this module lie, with one cache; one thread, as the processes that it starts have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield tmp_path_factory.mktemp("library")
        torch.set_num_threads(threads)


def config_of(folder: Path, name: str, keys: dict[str, Any] = TINY, **more: Any) -> Config:
    return Config(**keys, cache_path=folder / "cache", output_path=folder / name, **more)


def bytes_of(folder: Path) -> list[bytes]:
    """Everything that a run is: models, moments, records without what a clock said."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timed = ("images_per_s", "data_wait", "memory_bytes", "seconds")
    rows = [{key: value for key, value in row.items() if key not in timed} for row in rows]
    return [json.dumps(rows).encode(), *(path.read_bytes() for path in sorted(folder.rglob("*.safetensors")))]


@pytest.fixture(scope="module")
def commanded(folder: Path) -> Path:
    """The run that the command makes."""
    keys = {**TINY, "trackers": "[]", "cache_path": folder / "cache", "output_path": folder / "commanded"}
    assert end_of(*(f"--{key}={value}" for key, value in keys.items())) == 0
    return folder / "commanded"


# ------------------------------------------------------------------------------------------------- the same as the command


def test_function_gives_the_bits_of_the_command(folder: Path, commanded: Path) -> None:
    run = train(config_of(folder, "function"))
    assert bytes_of(run.folder) == bytes_of(commanded)


def test_command_without_keys_prints_what_it_chose(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(config_of(folder, "chosen"))
    said = " ".join(capsys.readouterr().out.split())
    assert f"4 steps, learning rate 0.0005 (onecycle), a validation every 2, all in {folder / 'chosen'}" in said


@pytest.fixture(scope="module")
def two(folder: Path) -> Callable[[str], Path]:
    """Runs of two processes by name: the command below accelerate launch, or a script below it or below torchrun."""
    keys = {**TINY, "cache_path": str(folder / "cache")}
    script = folder / "script.py"
    script.write_text(
        "import sys\nfrom unet_dist import Config, train\n"
        f"run = train(Config(**{keys!r}, output_path=sys.argv[1]))\nassert run.scores['step']\n"
    )
    accelerate = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
    torchrun = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words = [f"--{key}={value}" for key, value in {**keys, "output_path": folder / "command-2"}.items()]
    calls = {
        "command-2": [*accelerate, "-m", "unet_dist", "train", *words],
        "accelerate-2": [*accelerate, str(script), str(folder / "accelerate-2")],
        "torchrun-2": [*torchrun, str(script), str(folder / "torchrun-2")],
    }

    @cache
    def launched(name: str) -> Path:
        ran = subprocess.run(
            [sys.executable, "-m", *calls[name]], cwd=ROOT, env=quiet_environment(), capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert "1 accumulation x 1 crops on cpu" in ran.stdout, "two processes, a crop each"
        return folder / name

    return launched


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torchrun-2", "accelerate-2"])
def test_script_on_two_processes_gives_the_bits_of_the_command(two: Callable[[str], Path], name: str) -> None:
    """Below torchrun and below accelerate launch, as the command below accelerate launch."""
    assert bytes_of(two(name)) == bytes_of(two("command-2"))


@pytest.mark.slow
def test_notebook_gives_the_bits_of_the_command(folder: Path, commanded: Path) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    keys = {**TINY, "cache_path": str(folder / "cache")}
    cells = [
        "from unet_dist import Config, Run, train",
        f"run = train(Config(**{keys!r}, output_path={str(folder / 'notebook')!r}))\nrun.scores['step']",
        "from accelerate import notebook_launcher\ndef several():\n"
        f"    train(Config(**{keys!r}, output_path={str(folder / 'notebook-2')!r}))\n"
        f"notebook_launcher(several, num_processes=2, use_port='{free_ports(1)[0]}')",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    with pytest.MonkeyPatch.context() as patch:
        for key, value in quiet_environment().items():
            patch.setenv(key, value)
        nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    assert notebook.cells[1].outputs[-1]["data"]["text/plain"] in ("2", "4")
    assert bytes_of(folder / "notebook") == bytes_of(commanded)
    assert Run(folder / "notebook-2").metrics[-1]["step"] == 4


def test_worked_example_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNET_DIST_CACHE", str(tmp_path / "cache"))
    result = doctest.testmod(unet_dist.assembly.train, optionflags=doctest.ELLIPSIS)
    assert result.attempted > 3
    assert result.failed == 0


def test_network_is_gone_when_the_processes_part(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else gloo may leave a process waiting for ever: the group is taken down under the gradients' averaging."""
    leave, alive = group._leave, []

    def watched(processes: Any) -> None:
        gc.collect()
        alive.append([type(one).__name__ for one in gc.get_objects() if type(one) in (Trainer, Start)])
        leave(processes)

    monkeypatch.setattr(group, "_leave", watched)
    train(config_of(folder, "parted"))
    assert alive == [[]]


# ------------------------------------------------------------------------------------------------------------- objects


class Flipped:
    """Mirrors every crop."""

    def __call__(
        self, image: np.ndarray, labels: np.ndarray, border: np.ndarray | None = None, *, seed: int
    ) -> tuple[np.ndarray, ...]:
        return tuple(plane[:, ::-1] for plane in (image, labels, border) if plane is not None)


class Doubled(CrossEntropy):
    """Twice the cross-entropy, over the same divisor."""

    def sums(self, *args: Any, **keys: Any) -> Tensor:
        return 2 * super().sums(*args, **keys)

    def divisor(self, counts: LabelCounts) -> Tensor:
        return super().divisor(counts)


class Listener(Callback):
    """Records the lines that it gets."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []
        self.losses: list[Tensor] = []

    def on_step(self, step: int, loss: Tensor) -> None:
        self.told.append(("step", step))
        self.losses.append(loss)

    def on_validation(self, step: int, scores: Scores) -> None:
        self.told.append(("validation", step))

    def on_end(self, progress: Progress) -> None:
        self.told.append(("end", progress.step))


def trace(confusion: Tensor) -> float:
    """Right pixels."""
    return int(confusion.diagonal().sum())


def test_objects_take_the_place_of_what_a_config_names(folder: Path, commanded: Path) -> None:
    torch.manual_seed(0)  # as the command does before it builds its network
    listener = Listener()
    run = train(
        config_of(folder, "objects", {k: v for k, v in NETWORK.items() if not k.startswith("synthetic")}),
        model=UNet(3, 35, depth=1, base_channels=2, norm="weight"),
        loss=CrossEntropy(),
        data=SyntheticSource(6, (48, 80), 0),
        metrics=[trace],
        callbacks=[listener],
    )
    theirs, ours = (folder_ / "last/model.safetensors" for folder_ in (commanded, run.folder))
    assert ours.read_bytes() == theirs.read_bytes(), "the same parts, brought as objects"
    assert listener.told == [
        *(("step", 1), ("step", 2), ("validation", 2), ("step", 3), ("step", 4), ("validation", 4), ("end", 4)),
    ]
    rows = [row for row in run.metrics if row["split"] == "train"]
    assert rows[0]["loss"] == pytest.approx(float(sum(listener.losses[:2])) / 2)
    validations = [row for row in run.metrics if row["split"] == "validation"]
    assert all(row["metrics"]["trace"] > 0 for row in validations)  # type: ignore[index]
    loaded = run.model
    assert loaded.class_names == run.open_data(SyntheticSource(6, (48, 80), 0)).class_names
    assert loaded.mean != [127.5] * 3, "the data set's, as nobody described the network"


def test_object_changes_the_run(folder: Path, commanded: Path) -> None:
    doubled = train(config_of(folder, "doubled"), loss=Doubled())
    first = [next(row["loss"] for row in run.metrics if row["split"] == "train") for run in (Run(commanded), doubled)]
    assert isinstance(first[0], float)
    assert first[1] == pytest.approx(2 * first[0], rel=0.05)
    flipped = train(config_of(folder, "flipped"), augmentation=Flipped())
    assert bytes_of(flipped.folder) != bytes_of(commanded)


def test_run_goes_on_with_the_same_objects_only(folder: Path) -> None:
    train(config_of(folder, "goes-on"), loss=Doubled())
    with pytest.raises(ConfigError, match=r"other settings: loss: 'tests\.assembly\.test_library:Doubled' -> 'cross_"):
        train(config_of(folder, "goes-on"))
    assert train(config_of(folder, "goes-on"), loss=Doubled()).metrics[-1]["step"] == 4


@pytest.mark.parametrize(
    ("objects", "keys", "complaint"),
    [
        (
            {"loss": CrossEntropy()},
            {"label_smoothing": 0.1},
            r"^label_smoothing: got 0\.1 together with loss=\.\.\., an",
        ),
        ({"model": UNet(3, 35, depth=1)}, {}, r"^base_channels: got 2 together with model="),
        ({"data": "somewhere"}, {}, r"^synthetic_images: got 6 together with data="),
        ({"augmentation": Flipped()}, {"augmentation": "street"}, r"^augmentation: got 'street' together with"),
    ],
)
def test_key_beside_an_object_that_decides_it_is_refused(
    folder: Path, objects: dict[str, Any], keys: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        train(config_of(folder, "refused", **keys), **objects)


def plain() -> nn.Module:
    """A network that knows nothing of this package."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 35, 3))


def test_any_module_trains_in_tiles_as_in_whole(folder: Path) -> None:
    """Its measured halo allows tiles: the first step records the same loss."""
    keys = {**NETWORK, "log_steps": 1, "dtype": "float64", "total_steps": 2}
    runs = [train(config_of(folder, f"plain-{size}", keys, tile_size=size), model=plain()) for size in (None, 20)]
    losses = [[row["loss"] for row in run.metrics if row["split"] == "train"] for run in runs]
    assert losses[1] == pytest.approx(losses[0], abs=1e-8)
    best = runs[0].model
    assert (best.num_classes, best.locality) == (35, Locality(2, 1))
    assert Run(runs[0].folder, network=plain()).model.mean == best.mean
    with pytest.raises(CheckpointError, match=r"network that was given as an object"):
        _ = Run(runs[0].folder).model
    assert train(config_of(folder, "plain-None", keys), model=plain()).metrics[-1]["step"] == 2, "it resumes"


def test_network_of_other_classes_is_refused(folder: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^model: got a UNet for 3 channels and 4 classes, expected 3 channels and 35"
    ):
        train(config_of(folder, "other-classes", NETWORK), model=UNet(3, 4, depth=1, base_channels=2))


# ---------------------------------------------------------------------------------------------------------- a finished run


def test_finished_run_is_opened(folder: Path, commanded: Path) -> None:
    run = Run(commanded)
    assert run.config.schedule.total_steps == 4
    assert [(row["step"], row["split"]) for row in run.metrics] == [
        *((2, "train"), (2, "validation"), (4, "train"), (4, "validation")),
    ]
    assert run.scores["miou_present"] == max(
        float(str(row["miou_present"])) for row in run.metrics if row["split"] == "validation"
    )
    cache = run.open_data()
    assert run.splits == {name: list(cache.split(name).ids) for name in cache.splits}
    assert (run.data["channels"], run.model.num_classes) == (3, 35)
    assert run.evaluations == {}
    with pytest.raises(CheckpointError, match=r"got a folder without config\.yaml, expected the output_path of a run"):
        _ = Run(folder).config
