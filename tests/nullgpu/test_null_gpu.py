"""Proves on a GPU that does nothing that each setting trains on CUDA, that nothing waits, and the number of launches per step.

The real CUDA build of torch, over stub libraries that count (device.c). It says nothing of values or of a GPU's time.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.processes import quiet_environment
from tests.nullgpu.settings import ALONE, GRAPHED, STEPS, TINY, TOGETHER
from tests.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
MOST_LAUNCHES = json.loads((Path(__file__).parent / "launches.json").read_text(encoding="utf-8"))
"""Launches of a step, and of a validation, by setting, as last measured with torch 2.13.0. A change may lower them: then write the
lower ones, which UNET_DIST_NULLGPU_WRITE=1 does."""

MOST_CALLS = json.loads((Path(__file__).parent / "host.json").read_text(encoding="utf-8"))
"""Calls of Python functions and operations of torch in a step, which make the host's time; as the launches."""

LIMIT_S = 500
"""Of some 50 s on a quiet core."""

Found = dict[str, dict[str, Any]]


class NullGpu:
    """Starts Python in the environment of the CUDA torch, on a null GPU."""

    def __init__(self, python: Path, folder: Path) -> None:
        self.python, self.folder = python, folder
        self.library = folder / "libnullgpu.so"

    def start(self, words: list[str], *, is_there: bool = True, **environment: str) -> subprocess.Popen[str]:
        """Start a process, without the driver where the GPU is not there."""
        kept = {key: value for key, value in quiet_environment().items() if not key.startswith("CUDA_")}
        null = {"LD_PRELOAD": str(self.library), "LD_LIBRARY_PATH": str(self.folder)} if is_there else {}
        return subprocess.Popen(
            [self.python, "-W", "ignore", *words],
            cwd=ROOT,
            env={**kept, **null, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def pair(self, words: list[str], **environment: str) -> list[tuple[int, str]]:
        """Run two processes; the exit code of each and what it printed."""
        place = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "NULL_DEVICES": "2"}
        place["MASTER_PORT"] = str(free_ports(1)[0])
        ranks = [self.start(words, RANK=r, LOCAL_RANK=r, **place, **environment) for r in ("0", "1")]
        return [finish(process) for process in ranks]


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a process; its exit code and what it printed."""
    try:
        said, _ = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        pytest.skip(f"this machine is too slow or too busy: not done in {LIMIT_S} s")
    return process.returncode, said


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> NullGpu:
    python = Path(os.environ.get("UNET_DIST_NULLGPU_PYTHON", ROOT / ".cache/nullgpu/bin/python"))
    if not python.exists():
        pytest.skip(
            f"needs an environment with a CUDA build of torch at {python}: bash tests/nullgpu/make_environment.sh"
        )
    if shutil.which("gcc") is None or shutil.which("nm") is None:
        pytest.skip("needs gcc and nm, to build the stubs")
    folder = tmp_path_factory.mktemp("nullgpu")
    built = subprocess.run(
        [python, Path(__file__).parent / "build.py", folder], capture_output=True, text=True, check=False
    )
    if built.returncode:
        pytest.skip(f"the stubs do not build for this torch: {built.stderr.strip().splitlines()[-1:]}")
    return NullGpu(python, folder)


def probe(gpu: NullGpu, what: str, *more: str) -> list[str]:
    return ["-m", "tests.nullgpu.probe", str(gpu.library), str(gpu.folder), what, *more]


@pytest.fixture(scope="module")
def alone(gpu: NullGpu) -> Found:
    """What one process asked of the device, by setting."""
    code, said = finish(gpu.start(probe(gpu, "alone")))
    assert code == 0, said[-3000:]
    found = dict(json.loads((gpu.folder / "alone-0.json").read_text(encoding="utf-8")))
    if "UNET_DIST_NULLGPU_WRITE" in os.environ:
        launches = {name: {part: found[name][part]["launches"] for part in ("step", "validation")} for name in ALONE}
        (Path(__file__).parent / "launches.json").write_text(json.dumps(launches, indent=1) + "\n", encoding="utf-8")
        MOST_LAUNCHES.update(launches)
    return found


@pytest.fixture(scope="module")
def together(gpu: NullGpu, alone: Found) -> list[Found]:
    """What each of two processes asked, by setting. After `alone`, which has made the cache."""
    assert alone
    ended = gpu.pair(probe(gpu, "together", json.dumps(free_ports(len(TOGETHER) + 1))))
    assert [code for code, _ in ended] == [0, 0], "\n".join(said[-2000:] for _, said in ended)
    return [json.loads((gpu.folder / f"together-{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]


@pytest.mark.parametrize("setting", ALONE)
def test_setting_trains_and_no_step_waits(alone: Found, setting: str) -> None:
    found = alone[setting]
    assert (found["code"], found["steps"]) == (0, STEPS), found["said"]
    assert found["step"]["waits"] == found["step"]["event_waits"] == found["step"]["large_pageable"] == 0
    assert found["step"]["in_turn"] == 0, "crops come to the device beside its computing"
    assert 0 < found["step"]["launches"] <= MOST_LAUNCHES[setting]["step"]


@pytest.mark.parametrize("setting", ALONE)
def test_no_validation_waits(alone: Found, setting: str) -> None:
    """But for the copies of the counts, at its end: it has 2 images of 24 windows or more."""
    found = alone[setting]["validation"]
    assert 0 < found["launches"] <= MOST_LAUNCHES[setting]["validation"]
    assert found["waits"] <= 4
    assert found["large_pageable"] == found["in_turn"] == 0


@pytest.mark.parametrize("setting", ALONE)
def test_a_model_folder_is_one_copy_and_one_wait(alone: Found, setting: str) -> None:
    found = alone[setting]["model"]
    assert (found["waits"], found["event_waits"], found["large_pageable"]) == (0, 1, 0)


def test_the_debug_mode_ends_in_its_finding(alone: Found) -> None:
    """Nothing is learnt where nothing is computed."""
    found = alone["debug"]
    assert found["code"] == 2
    assert "there is nothing to learn" in found["said"]
    assert "Traceback" not in found["said"]


def test_no_batch_of_a_prediction_waits(alone: Found) -> None:
    found = alone["a prediction"]
    assert found["code"] == 0, found["said"]
    assert len(found["batches"]) > 10
    for batch in found["batches"]:
        assert batch["launches"] > 0
        assert batch["waits"] == batch["large_pageable"] == batch["in_turn"] == 0


def test_lack_of_memory_ends_in_smaller_tiles_or_in_a_sentence(alone: Found) -> None:
    found = alone["a prediction, little memory"]
    assert found["code"] == 0, found["said"]
    assert "Memory ran out with 4 window(s) of 740 px at once: continuing with 1 of at most" in found["said"]
    found = alone["a training, little memory"]
    assert found["code"] == 2
    assert "Memory ran out after step 0, on cuda: CUDA out of memory." in found["said"]
    assert "Traceback" not in found["said"]


def test_passes_can_be_captured_in_graphs(gpu: NullGpu) -> None:
    """No code uses it yet. Each pass is one launch, beside casts of what comes in and goes out, and sums into the gradients."""
    code, said = finish(gpu.start(probe(gpu, "graphs")))
    assert code == 0, said[-3000:]
    found = json.loads((gpu.folder / "graphs-0.json").read_text(encoding="utf-8"))
    assert found.keys() == GRAPHED.keys()
    for counts in found.values():
        assert counts["eager"]["replays"] == 0
        assert counts["captured"]["replays"] == 2
        assert counts["captured"]["launches"] <= counts["captured"]["gradients"] + 10 < counts["eager"]["launches"] / 2
        assert counts["captured"]["waits"] == 0
        assert counts["captured"]["in_place"], "accumulation adds to the gradients"


@pytest.mark.parametrize("setting", TOGETHER)
def test_two_processes_call_the_same_collectives(together: list[Found], setting: str) -> None:
    """Other ones, or in another order, would wait for each other for ever; and none touches the other's device."""
    first, second = (found[setting] for found in together)
    assert (first["code"], second["code"]) == (0, 0)
    assert first["collectives"] > STEPS
    assert (first["collectives"], first["order"]) == (second["collectives"], second["order"])
    for found in (first, second):
        assert found["foreign"] == 0
        assert found["step"]["waits"] == found["step"]["large_pageable"] == 0


def test_a_bench_with_batch_norm_ends(together: list[Found]) -> None:
    """Its lone step must not call the collective to which the others do not come."""
    assert [found["a bench"]["code"] for found in together] == [0, 0]
    assert together[0]["a bench"]["foreign"] == 0


def test_a_dead_peer_is_a_sentence_and_the_same_command_ends_the_run(gpu: NullGpu, together: list[Found]) -> None:
    assert together
    (code, said), (killed, _) = gpu.pair(probe(gpu, "lonely"))
    assert killed == 9
    assert code not in (0, 9)
    assert "unet-dist: error: " in said
    assert "terminate called" not in said
    ended = gpu.pair(probe(gpu, "lonely"), LIVES="1")
    assert [code for code, _ in ended] == [0, 0], "\n".join(said[-2000:] for _, said in ended)
    assert "Finished at step 4" in ended[0][1]


def test_the_check_of_two_gpus_kills_a_process_and_starts_it_again(gpu: NullGpu) -> None:
    """The stage of `doctor --gpu` that needs two. Nothing is computed, so the device's memory is fresh each time: zeros."""
    keeps = {"NULL_DEVICES": "2", "NULL_COPIES": "1", "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    code, said = finish(gpu.start(probe(gpu, "lost"), **keeps))
    if "The time was over" in said:
        pytest.skip("this machine is too slow or too busy for two processes")
    assert code == 0, said[-3000:]
    found = json.loads((gpu.folder / "lost-0.json").read_text(encoding="utf-8"))["lost"]
    assert found["sentence"].startswith("unet-dist: error: rank 0 of 2 lost rank 1")
    assert found["the same command"] == "ended the run"


@pytest.mark.parametrize(("is_there", "environment"), [(True, {"NULL_DRIVER": "12020"}), (False, {})])
def test_a_driver_that_is_old_or_missing_is_refused(gpu: NullGpu, is_there: bool, environment: dict[str, str]) -> None:
    """A job that was given a GPU must not train on the CPU in silence."""
    keys = {**TINY, "cache_path": gpu.folder / "cache", "output_path": gpu.folder / "refused"}
    words = ["-m", "unet_dist", "train", *(f"--{key}={value}" for key, value in keys.items())]
    code, said = finish(gpu.start(words, is_there=is_there, SLURM_GPUS_ON_NODE="1", **environment))
    assert code == 2, said
    assert "unet-dist: error: " in said
    assert "driver" in said
    assert "Traceback" not in said


def test_the_host_makes_no_more_calls_in_a_step(gpu: NullGpu) -> None:
    """A time would vary with the machine; 5 ms on one core were measured with these (docs/evidence/experiments.md)."""
    report = gpu.folder / "host.json"
    code, said = finish(gpu.start(["-m", "tests.measure.host_time", "--small", "--output", str(report)]))
    assert code == 0, said[-3000:]
    found = json.loads(report.read_text(encoding="utf-8"))["settings"]
    if "UNET_DIST_NULLGPU_WRITE" in os.environ:
        (Path(__file__).parent / "host.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return
    for name, most in MOST_CALLS.items():
        for kind, count in most.items():
            # Now and then Python collects garbage, or calls back from another thread.
            assert 0 < found[name][kind] <= 1.01 * count, (name, kind)


def test_smp_keeps_its_promises_beside_this_torch(gpu: NullGpu) -> None:
    """On the CPU: beside a CPU build of torch torchvision, which the library imports, usually cannot be imported."""
    code, said = finish(
        gpu.start(["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/models/test_smp.py"], is_there=False)
    )
    assert code == 0, said[-3000:]
