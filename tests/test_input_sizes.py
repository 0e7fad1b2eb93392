"""Proves that the sweep over input sizes trains, evaluates and writes the table, resumes where it stopped, and that the table's
figures are those of the runs; and what docs/explanation/input_size.md says: one network gives equal labels at every tile size.

Real trainings of a tiny network; only the making of the virtual environment is a stand-in.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.measure import tile_sizes
from unet_dist.config.sections import Config

ROOT = Path(__file__).resolve().parent.parent

# Makes a virtual environment by copying itself, installs nothing, and is the real interpreter otherwise.
PYTHON = f"""\
#!/bin/sh
case "$1 $2" in
  "-m venv") for last; do :; done; mkdir -p "$last/bin"; cp "$0" "$last/bin/python"
    printf '#!/bin/sh\\nshift 3\\nexec {sys.executable} "$@"\\n' > "$last/bin/accelerate"; chmod +x "$last/bin/accelerate" ;;
  "-m pip") exit 0 ;;
  *) exec {sys.executable} "$@" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The scripts and configs beside a stand-in for Python; the package is this one."""
    root = tmp_path / "a checkout"
    for name in ("launch", "configs"):
        shutil.copytree(ROOT / name, root / name)
    shutil.copy(ROOT / "setup.cfg", root)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python3").write_text(PYTHON)
    (tmp_path / "bin/python3").chmod(0o755)
    return root


def sweep(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the script on one process."""
    path = f"{root.parent / 'bin'}:{os.environ['PATH']}"
    there = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "UNET_DIST_TORCH": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    command = ["bash", "launch/input_size_sweep.sh", *words]
    return subprocess.run(command, cwd=root, env=there, capture_output=True, text=True)


@pytest.mark.slow
def test_smoke_ends_in_the_table_and_goes_on(checkout: Path) -> None:
    """One of its sizes, in tiles; batch 1 makes it one process."""
    words = ("--smoke", "--sizes", "full", "--batch_size", "1", "--total_steps", "3", "--eval_steps", "3")
    words += ("--synthetic_images", "6", "--cache_path", str(checkout.parent / "cache"), "--output_path", "out")
    done = sweep(checkout, *words)
    assert done.returncode == 0, done.stderr
    table = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(table) == 3
    rows = json.loads((checkout / "out/input_sizes.json").read_text())
    (row,) = rows
    assert (row["input"], row["output"], row["tile_size"], row["aligned"]) == ("full", None, 80, [1, 1])
    assert row["miou"] == json.loads((checkout / "out/input-full/evaluation-test.json").read_text())["miou"]
    assert f"{row['miou']:.4f}" in table[2]
    assert row["seconds"] > 0
    assert row["memory_bytes"] > 1e6
    assert row["is_finished"]

    again = sweep(checkout, *words)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("evaluation-test.json is there.") == 1
    assert json.loads((checkout / "out/input_sizes.json").read_text()) == rows


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--sizes", "big"], '--sizes: got "big", expected input sizes such as 572,668,full.'),
        (["--sizes"], "--sizes: got no value"),
        (["--input_size", "572"], "--input_size: this script sets it."),
        (["--input-size=572"], "--input_size: this script sets it."),
    ],
)
def test_a_mistake_is_a_sentence(checkout: Path, words: list[str], sentence: str) -> None:
    done = sweep(checkout, *words)
    assert done.returncode == 1
    assert sentence in done.stderr


def make_run(output: Path, size: str, *, scores: dict[str, Any] | None, step: int = 20) -> None:
    """What a run of the reference network leaves, without its weights."""
    folder = output / f"input-{size}"
    folder.mkdir(parents=True)
    config = Config.from_flat(
        {
            "data_path": "synthetic",
            "synthetic_images": 3,
            "synthetic_size": "1080x1920",
            "cache_path": str(output / "cache"),
            "input_size": "full" if size == "full" else int(size),
            "total_steps": 20,
            "batch_size": 16,
        }
    )
    (folder / "config.yaml").write_text(yaml.safe_dump(config.flat()))
    lines: list[dict[str, Any]] = [
        {"step": 10, "split": "train", "images_per_s": 2.0, "memory_bytes": 2.0 * 2**30},  # 10 x 16 images: 80 s
        {"step": 10, "split": "validation", "miou": 0.1, "seconds": 7.0},
        {"step": 20, "split": "train", "images_per_s": 4.0, "memory_bytes": 3.0 * 2**30},  # 40 s
    ]
    kept = [line for line in lines if line["step"] <= step]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    if scores is not None:
        (folder / "evaluation-test.json").write_text(json.dumps(scores))


@pytest.mark.slow
def test_the_published_table(tmp_path: Path) -> None:
    for size, miou in (("572", 0.2), ("724", 0.3), ("668", 0.25)):
        make_run(tmp_path, size, scores={"miou": miou, "data": "streets"})
    make_run(tmp_path, "full", scores=None, step=10)
    command = [sys.executable, str(ROOT / "launch/input_size_table.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "input_sizes.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert cells[0][5:7] == ["mean IoU, ours (test)", "mean IoU, published"]
    assert cells[2:] == [
        ["572", "388", "3x5", "3x5", "-", "0.2000", "0.1546", "2 min 07 s", "3.00 GiB"],
        ["668", "484", "3x4", "3x4", "-", "0.2500", "0.1681", "2 min 07 s", "3.00 GiB"],
        ["724 (takes 732)", "548", "2x4", "2x4", "-", "0.3000", "0.1715", "2 min 07 s", "3.00 GiB"],
        ["full", "the image", "1x1", "1x1", "-", "-", "-", "1 min 27 s so far", "2.00 GiB"],
    ]
    with (tmp_path / "input_sizes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["input"], row["published_miou"], row["abutting"]) for row in rows][:2] == [
        ("572", "0.1546", "3x5"),
        ("668", "0.1681", "3x4"),
    ]


def test_a_folder_without_runs_is_a_sentence(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "launch/input_size_table.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 2
    assert "got no folder input-SIZE with a run" in done.stderr


def test_one_network_at_several_tile_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    """The command of docs/explanation/input_size.md, on a smaller image."""
    words = ["--image_size", "200x320", "--tile_sizes", "220", "252", "300", "--base_channels", "2"]
    with pytest.raises(SystemExit) as left:
        tile_sizes.main(words)
    assert left.value.code == 0
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()[2:]]
    aligned = [row for row in rows if row[0] == "aligned"]
    assert [row[-2] for row in aligned] == ["0.000%"] * 3
    assert all(float(row[-1]) < 1e-10 for row in aligned)
    abutting = [row for row in rows if row[0] == "abutting"]
    assert len(abutting) == 3
    assert all(float(row[-1]) > 1e-3 for row in abutting)
