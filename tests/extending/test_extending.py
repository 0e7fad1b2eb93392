"""Proves that a package from outside brings its own parts: trained on two processes, resumed, evaluated, predicted, exported.

The package is in package/, with a pyproject of its own; docs/how-to/extending.md explains it.
"""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image

from unet_dist.cli import main
from unet_dist.config.courses import COURSES
from unet_dist.config.loss_terms import LOSSES
from unet_dist.config.models import MODELS
from unet_dist.config.transforms import TRANSFORMS
from unet_dist.data.sources.registry import SOURCES
from unet_dist.metrics.registry import METRICS
from unet_dist.models.encoders.registry import ENCODERS
from unet_dist.registry import Registry

PACKAGE = Path(__file__).parent / "package"
ACCELERATE = [str(Path(sys.executable).with_name("accelerate")), "launch", "--multi_gpu", "--num_processes", "2"]
PARTS = {
    "data_path": "leaf_parts.data:Leaves(count=8)",
    "model": "leaf_parts.nets:make(width=4)",
    "loss": "cross_entropy + 0.5*leaf_parts.losses:Squares(factor=2.0)",
    "schedule": "leaf_parts.courses:halving(every=2)",
    "augmentation": "leaf_parts.transforms:NoisyFlip(strength=5)",
    "metrics": "leaf_parts.metrics:kappa",
}
TRAIN = {
    **PARTS, "input_size": "32", "batch_size": "4", "eval_steps": "2", "learning_rate": "0.01", "dtype": "float64",
    "total_steps": "2", "tile_size": "24",
}  # fmt: skip


def run(folder: Path, *words: str, fails: bool = False) -> str:
    """Run a command in a folder, as a user of the package does; returns what it printed."""
    heard, before = io.StringIO(), Path.cwd()
    os.chdir(folder)
    try:
        with redirect_stdout(heard), redirect_stderr(heard), pytest.raises(SystemExit) as left:
            main(list(words))
    finally:
        os.chdir(before)
    assert bool(left.value.code) == fails, heard.getvalue()
    return heard.getvalue()


def launch(folder: Path, *words: str) -> None:
    """The same on two processes, below accelerate launch."""
    path = f"{Path(__file__).parents[2]}:{PACKAGE}:{folder / 'installed'}"
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [*ACCELERATE, "-m", "unet_dist", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def install(folder: Path) -> None:
    """What `pip install` writes of pyproject.toml: the names, and nothing else."""
    written = (PACKAGE / "pyproject.toml").read_text().split("[project.entry-points.")[1:]
    info = folder / "leaf_parts-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: leaf-parts\nVersion: 1.0\n")
    groups = (part.replace('"]', "]", 1).replace('"', "[", 1).replace('"', "") for part in written)
    (info / "entry_points.txt").write_text("\n".join(groups))


def train(**changes: str) -> list[str]:
    """The words of a training with the parts of the package."""
    return ["train", *(f"--{key}={value}" for key, value in {**TRAIN, **changes}.items())]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a run of four steps."""
    folder = tmp_path_factory.mktemp("lab")
    install(folder / "installed")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.syspath_prepend(str(PACKAGE))
        patch.syspath_prepend(str(folder / "installed"))
        run(folder, *train(output_path="one", total_steps="4"))
        yield folder
    torch.set_num_threads(threads)
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def two(lab: Path) -> Path:
    """The same run: two steps on two processes, resumed by one process for two more."""
    launch(lab, *train(output_path="two"))
    run(lab, *train(output_path="two", total_steps="4", extend_schedule="continue"))
    return lab / "two"


def losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["miou"] for row in rows if row["split"] == "validation"]


@pytest.mark.slow
def test_the_run_is_the_same_on_two_processes_and_resumed(lab: Path, two: Path) -> None:
    """C3 and C4 for parts that this package does not know: float64, to summation order."""
    from safetensors.torch import load_file

    resumed, one = (load_file(run / "last/model.safetensors") for run in (two, lab / "one"))
    assert resumed.keys() == one.keys()
    for name, tensor in one.items():
        assert (resumed[name] - tensor).abs().max() <= 1e-8 * tensor.abs().max(), name
    assert losses(two) == pytest.approx(losses(lab / "one"), abs=1e-12)


def test_the_metric_is_in_the_log_and_in_tensorboard(lab: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    rows = [json.loads(line) for line in (lab / "one/metrics.jsonl").read_text().splitlines()]
    logged = {row["step"]: row["metrics"]["leaf_parts.metrics:kappa"] for row in rows if row["split"] == "validation"}
    assert sorted(logged) == [2, 4]
    events = EventAccumulator(str(lab / "one/tensorboard"))
    events.Reload()
    curve = {event.step: event.value for event in events.Scalars("validation/leaf_parts.metrics:kappa")}
    assert curve == pytest.approx(logged, rel=1e-6)


def test_a_folder_asks_for_trust_and_evaluates_by_the_metric(lab: Path) -> None:
    said = run(lab, "evaluate", "one", fails=True)
    assert "needs leaf_parts.nets:make, which is code of the package leaf_parts" in said
    assert "--trust leaf_parts" in said
    assert "Traceback" not in said
    words = ["--metrics", "mean_dice,leaf_parts.metrics:kappa", "--trust", "leaf_parts"]
    table = run(lab, "evaluate", "one", *words)
    record = json.loads((lab / "one/evaluation-test.json").read_text())
    (a, b), (c, d) = record["confusion"]
    n = a + b + c + d
    chance = ((a + b) * (a + c) + (c + d) * (b + d)) / n**2
    assert record["metrics"]["leaf_parts.metrics:kappa"] == pytest.approx(((a + d) / n - chance) / (1 - chance))
    assert record["inference"] == "exact tiles"
    assert "leaf_parts.metrics:kappa" in table
    run(lab, "report", "one")
    page = (lab / "one/report.html").read_text()
    assert page.count("leaf_parts.metrics:kappa") >= 2  # the headline, and the curve of the validations


@pytest.mark.slow
def test_it_predicts_the_same_by_any_tiles_and_exports(lab: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    Image.fromarray(image).save(lab / "leaf.png")
    found = []
    for size in ("24", "90"):
        words = ["--output", f"out{size}", "--tile_size", size, "--trust", "leaf_parts"]
        run(lab, "predict", "one", "leaf.png", *words)
        found.append(np.asarray(Image.open(lab / f"out{size}/leaf.png")))
    assert found[0].shape == (70, 90)
    assert np.array_equal(*found)
    (lab / "planes").mkdir()
    (lab / "planes/same.plane").write_bytes(struct.pack("<8s3H", b"LEAFPLAN", *image.shape) + image.tobytes())
    run(lab, "predict", "one", "planes", "--output", "planes_out", "--tile_size", "24", "--trust", "leaf_parts")
    assert np.array_equal(np.asarray(Image.open(lab / "planes_out/same.png")), found[0])
    pytest.importorskip("onnxruntime")
    run(lab, "export", "one", "--format", "onnx", "--output", "leaf.onnx", "--trust", "leaf_parts")
    run(lab, "predict", "leaf.onnx", "leaf.png", "--output", "onnx", "--tile_size", "24")
    assert (np.asarray(Image.open(lab / "onnx/leaf.png")) == found[0]).mean() > 0.999


@pytest.mark.parametrize(
    ("registry", "name"),
    [
        *((MODELS, "small"), (LOSSES, "squares"), (SOURCES, "leaves"), (METRICS, "kappa"), (COURSES, "halving")),
        (TRANSFORMS, "noisy_flip"),
        (ENCODERS, "plain"),
    ],
    ids=lambda one: one if isinstance(one, str) else one.group,
)
def test_an_installed_package_is_found_by_name(
    registry: Registry[object], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path)
    monkeypatch.syspath_prepend(str(PACKAGE))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert name in registry.names()
    assert registry.find(name).startswith("leaf_parts.")
    assert callable(registry.load(name))
