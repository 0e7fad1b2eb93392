"""Proves what the launch scripts promise before any training: one environment, made once, with the right torch, or a sentence.

The environment's maker runs for real on a copy of the scripts; Python and nvidia-smi are stand-ins that note their calls.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Notes its words; makes a virtual environment by copying itself.
PYTHON = """\
#!/bin/sh
echo "$@" >> "$CALLS"
case "$1 $2" in
  "-m venv") for last; do :; done; mkdir -p "$last/bin"; cp "$0" "$last/bin/python" ;;
  "-m pip") exit "${PIP_STATUS:-0}" ;;
  "--version ") echo "Python 3.12.1" ;;
  "-c import torch, unet_dist"*) exit "${MISSES:-1}" ;;
esac
"""


class Checkout:
    """A copy of the launch scripts, and a path on which everything heavy is a stand-in."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a checkout"
        shutil.copytree(ROOT / "launch", self.root / "launch")
        shutil.copy(ROOT / "setup.cfg", self.root)
        self.calls_file = folder / "calls"
        self.programs = folder / "bin"
        self.programs.mkdir()
        self.add_program("python3", PYTHON)
        self.add_program("nvidia-smi", "#!/bin/sh\necho 'No devices were found'\nexit 6\n")

    def add_program(self, name: str, text: str) -> None:
        """Put a program on the path."""
        (self.programs / name).write_text(text, encoding="utf-8")
        (self.programs / name).chmod(0o755)

    def make(self, extra: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        """Source environment.sh and make the environment."""
        return self.bash(
            "-euo", "pipefail", "-c", f'source launch/environment.sh; prepare_environment "{extra}"', **environment
        )

    def bash(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run bash in the checkout."""
        kept = {key: value for key, value in os.environ.items() if key not in ("PYTHON", "UNET_DIST_TORCH")}
        path = f"{self.programs}:{os.environ['PATH']}"
        return subprocess.run(
            ["bash", *words],
            cwd=self.root,
            env={**kept, "PATH": path, "CALLS": str(self.calls_file), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def pip_calls(self) -> list[str]:
        """The calls of pip so far; forgets them."""
        lines = self.calls_file.read_text(encoding="utf-8").splitlines() if self.calls_file.exists() else []
        self.calls_file.unlink(missing_ok=True)
        return [line for line in lines if line.startswith("-m pip")]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_environment_is_made_once_and_again_when_the_requirements_change(checkout: Checkout) -> None:
    assert checkout.make("test").returncode == 0
    (call,) = checkout.pip_calls()
    assert call.endswith(f"--editable {checkout.root}[test]")
    assert "--no-compile" in call, "most of an installation"
    assert checkout.make("test").stdout.strip() == f"{checkout.root}/.venv is as it should be."
    assert checkout.make("").stdout.strip() == f"{checkout.root}/.venv is as it should be."  # it has more than that
    assert checkout.pip_calls() == []
    with (checkout.root / "setup.cfg").open("a", encoding="utf-8") as file:
        file.write("# another requirement\n")
    assert checkout.make("test").returncode == 0
    assert len(checkout.pip_calls()) == 1


def test_torch_is_constrained_to_the_cpu_where_no_device_is_visible(checkout: Checkout) -> None:
    checkout.make()
    (call,) = checkout.pip_calls()
    assert f"-c {checkout.root}/launch/constraints-cpu.txt" in call
    assert "--no-compile" not in call, "many nodes may share it"


def test_a_visible_device_takes_the_cuda_torch_into_a_new_environment(checkout: Checkout) -> None:
    checkout.make()
    (checkout.root / ".venv/of the CPU").touch()
    checkout.pip_calls()
    checkout.add_program("nvidia-smi", "#!/bin/sh\necho 'GPU 0: NVIDIA H100 (UUID: GPU-1)'\n")
    assert "another device (cpu)" in checkout.make().stdout
    assert "--clear" in checkout.calls_file.read_text(encoding="utf-8")
    (call,) = checkout.pip_calls()
    assert "-c " not in call


def test_the_torch_can_be_said(checkout: Checkout) -> None:
    checkout.make(UNET_DIST_TORCH="cuda")
    (call,) = checkout.pip_calls()
    assert "-c " not in call


@pytest.mark.parametrize(("word", "wanted"), [("cu126", "torch==2.13.0+cu126"), ("2.9.1+cu126", "torch==2.9.1+cu126")])
def test_the_build_for_an_older_driver_can_be_said(checkout: Checkout, word: str, wanted: str) -> None:
    checkout.make(UNET_DIST_TORCH=word)
    (call,) = checkout.pip_calls()
    assert f" {wanted} --editable " in call


@pytest.mark.parametrize(
    ("misses", "has_venv", "makes_one"), [("0", False, False), ("1", False, True), ("0", True, True)]
)
def test_the_gpu_is_checked_by_the_python_that_has_all_it_takes(
    checkout: Checkout, misses: str, has_venv: bool, makes_one: bool
) -> None:
    """As on a node without a network; an environment that is there is kept to."""
    if has_venv:
        (checkout.root / ".venv").mkdir()
    ended = checkout.bash("launch/gpu_check.sh", "--minutes", "3", MISSES=misses)
    assert ended.returncode == 0, ended.stderr
    calls = checkout.calls_file.read_text(encoding="utf-8").splitlines()
    assert calls[-1] == "-m unet_dist doctor --gpu --minutes 3"
    assert (checkout.root / ".venv/bin/python").exists() == makes_one
    assert bool(checkout.pip_calls()) == makes_one


def test_a_failed_installation_is_tried_again(checkout: Checkout) -> None:
    failed = checkout.make(PIP_STATUS="1")
    assert failed.returncode == 1
    assert "pip could not install the requirements" in failed.stderr
    assert checkout.make().returncode == 0
    assert len(checkout.pip_calls()) == 2


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"PYTHON": "python-of-nobody"}, 'no "python-of-nobody" on the path. Install Python 3.10 or newer'),
        ({"PYTHON": "old"}, "Python 3.9.2 is too old; expected Python 3.10 or newer."),
        ({"PYTHON": "bare"}, "cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv"),
        ({"UNET_DIST_TORCH": "tpu"}, 'UNET_DIST_TORCH is "tpu"; expected "cpu", "cuda" or a build such as "cu126".'),
    ],
)
def test_a_mistake_is_a_sentence(checkout: Checkout, environment: dict[str, str], sentence: str) -> None:
    version = 'case "$1" in --version) echo "Python 3.9.2"; exit ;; esac\n'
    checkout.add_program("old", f"#!/bin/sh\n{version}exit 1\n")
    checkout.add_program("bare", '#!/bin/sh\ncase "$2" in *ensurepip*) exit 1 ;; esac\n')
    result = checkout.make(**environment)
    assert result.returncode == 1
    assert sentence in result.stderr
    assert checkout.pip_calls() == []


def test_scripts_name_no_registry_and_no_place_of_one_machine() -> None:
    files = [path for folder in ("launch", "configs", ".ci") for path in (ROOT / folder).rglob("*") if path.is_file()]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files if "__pycache__" not in path.parts)
    assert not [word for word in ("://", "--index-url", "find-links", "/home/", "/root/", "/work/") if word in text]
