"""Proves that a release works without a checkout: the wheel runs in an environment that sees nothing else of ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import unet_dist
from tests.distributed.processes import quiet_environment

ROOT = Path(__file__).resolve().parents[2]
_SMALL = "--synthetic_images 10 --synthetic_size 108x192 --base_channels 4 --total_steps 4 --eval_steps 2 --log_steps 2"


def call(words: list[str], folder: Path) -> str:
    environment = {key: value for key, value in quiet_environment().items() if key != "PYTHONPATH"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel, built from the source archive as a release is, and its requirements."""
    folder = tmp_path_factory.mktemp("release")
    source = folder / "source"
    source.mkdir()
    for name in ("LICENSE", "README.md", "pyproject.toml", "setup.cfg"):
        shutil.copy(ROOT / name, source)
    for name in ("configs", "launch", "unet_dist"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    call([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), str(source)], folder)
    (wheel,) = (folder / "dist").glob("*.whl")
    assert (folder / "dist" / f"unet_dist-{unet_dist.__version__}.tar.gz").is_file()
    venv.create(folder / "bare", with_pip=False)
    python = folder / "bare/bin/python"
    # A path in a .pth file is searched, and the .pth files there are not read: so the checkout's own installation stays out.
    bare = Path(call([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip())
    (bare / "requirements.pth").write_text(sysconfig.get_path("purelib") + os.linesep, encoding="utf-8")
    install = [
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--ignore-installed",
        str(wheel),
    ]
    call([sys.executable, "-m", "pip", *install], folder)
    return python.parent


@pytest.mark.slow
def test_quick_start_runs_from_a_wheel(programs: Path, tmp_path: Path) -> None:
    place = call([str(programs / "python"), "-c", "import unet_dist; print(unet_dist.__file__)"], tmp_path)
    assert Path(place.strip()).is_relative_to(programs.parent)
    assert call([str(programs / "unet-dist"), "--version"], tmp_path) == f"unet_dist {unet_dist.__version__}\n"
    call([str(programs / "unet-dist"), "quickstart", *_SMALL.split(), "--output_path", "run"], tmp_path)
    assert {"best", "predictions", "report.html"} <= {path.name for path in (tmp_path / "run").iterdir()}


@pytest.mark.slow
def test_files_to_edit_come_from_a_wheel(programs: Path, tmp_path: Path) -> None:
    for kind in ("config", "accelerate", "slurm"):
        call([str(programs / "unet-dist"), "init", kind, "--output", kind], tmp_path)
    for place in ("configs/accelerate/one_gpu.yaml", "launch/slurm/job.sh", "launch/slurm/one_node.sbatch"):
        assert (tmp_path / "slurm" / place).read_bytes() == (ROOT / place).read_bytes()
    call([str(programs / "unet-dist"), "plan", "config/config.yaml"], tmp_path)
