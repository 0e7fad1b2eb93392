"""Under `ulimit -v`, too little is a sentence that names it: before anything is loaded, or where loading fails."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

PROGRAM = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), -1)); " + (
    "from unet_dist.cli import main; main(['train', '--data_path', 'synthetic', '--total_steps', '1'])"
)


@pytest.mark.parametrize("limit_mib", [200, 690, 715])
def test_too_little_is_a_sentence(limit_mib: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(limit_mib * 2**20)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == 2, done.stderr
    assert f"ulimit -v: this process may use {limit_mib / 1024:.2f} GiB of addresses" in done.stderr


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        SystemError("error return without exception set"),
        ImportError("libtorch_cpu.so: failed to map segment"),
        RuntimeError("can't start new thread"),
    ],
)
def test_a_failure_to_load_is_told_from_others(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    from unet_dist.machine import address_space

    monkeypatch.setattr(address_space.resource, "getrlimit", lambda kind: (2**30, 2**30))
    assert "1.00 GiB" in str(address_space.explain_lack(error))
    assert address_space.explain_lack(ImportError("no module named x")) is None
    monkeypatch.setattr(address_space.resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY,) * 2)
    assert address_space.explain_lack(error) is None
