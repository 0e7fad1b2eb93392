"""Proves that a value of an environment variable that a library refuses is a sentence, whichever library and variable."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from unet_dist.command_line.environment import explain_environment


def failure(folder: Path, source: str) -> BaseException:
    """What somebody else's module raises when it is imported."""
    file = folder / "site-packages" / "their" / "config.py"
    file.parent.mkdir(parents=True)
    file.write_text(source)
    spec = importlib.util.spec_from_file_location("their_config", file)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(Exception) as caught:  # noqa: PT011, whatever it is
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return caught.value


@pytest.mark.parametrize(
    "source",
    [
        "import os\nlimit = int(\n    os.environ['THEIR_LIMIT']\n)",
        "def read(value):\n    return int(value)\nimport os\nread(os.environ['THEIR_LIMIT'])",
        "raise ValueError('see THEIR_LIMIT')",
        "raise FileNotFoundError(2, 'No such file', '/nowhere')",
    ],
)
def test_a_variable_is_found(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEIR_LIMIT", "/nowhere")
    sentence = explain_environment(failure(tmp_path, source))
    assert sentence is not None
    assert sentence.startswith("THEIR_LIMIT: their cannot use this environment variable's value '/nowhere' (")


@pytest.mark.parametrize(
    "source", ["raise KeyError('1')", "raise ValueError('HOME')", "raise ValueError('a fault of its own')"]
)
def test_another_failure_stays_one(source: str, tmp_path: Path) -> None:
    environment = {"OMP_NUM_THREADS": "1", "HOME": "/root", "THEIR_LIMIT": ""}
    assert explain_environment(failure(tmp_path, source), environment) is None


def test_a_fault_of_our_own_stays_one() -> None:
    from unet_dist.wording import listed

    with pytest.raises(TypeError) as caught:
        listed(None)  # type: ignore[arg-type]
    assert explain_environment(caught.value, {"THEIR_LIMIT": "NoneType"}) is None


def test_what_torch_reads_at_import_is_a_sentence() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "unet_dist", "doctor"],
        env={**os.environ, "TORCH_LOGS": "evil"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "TORCH_LOGS: torch cannot use this environment variable's value 'evil'" in done.stderr
