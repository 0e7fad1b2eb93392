"""Proves that the check of a GPU keeps its time, survives what fails, and runs whole at tiny sizes on a CPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.benchmark.conftest import leave
from unet_dist.benchmark import gpu_stages
from unet_dist.benchmark.gpu_check import FULL, SMOKE, Check, NotHereError, Stage, page, run_stages
from unet_dist.benchmark.gpu_stages import STAGES
from unet_dist.cli import parse
from unet_dist.processes.group import Processes

CUDA_ONLY = {"synchronisations", "memory", "tests"}


class Clock:
    """A clock that moves only when a test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def check(processes: Processes, tmp_path: Path, clock: Clock) -> Check:
    """With 60 s left."""
    return Check(FULL, processes, tmp_path / "scratch", deadline_s=clock.now + 60, clock=clock)


def stage(name: str, need_s: float, measure: Callable[[Check], dict[str, Any]]) -> Stage:
    return Stage(name, f"The {name}", need_s, measure)


def test_what_does_not_fit_is_skipped_and_what_fits_behind_it_is_not(
    check: Check, clock: Clock, tmp_path: Path
) -> None:
    def takes(seconds: float) -> Callable[[Check], dict[str, Any]]:
        def measure(_check: Check) -> dict[str, Any]:
            clock.now += seconds
            return {"figure": seconds}

        return measure

    stages = [stage("first", 0, takes(45)), stage("second", 20, takes(20)), stage("third", 15, takes(10))]
    outcomes = run_stages(stages, check, {}, tmp_path, lambda _: None)
    assert [(o.state, o.seconds) for o in outcomes] == [("done", 45), ("skipped", 0), ("done", 10)]
    assert outcomes[1].reason == "It needs about 20.0 s, and 15.0 s were left. Set a larger --minutes."
    assert clock.now <= check.deadline_s


@pytest.mark.slow
def test_a_failure_is_a_finding_and_ends_no_other_stage(check: Check, tmp_path: Path) -> None:
    def fails(_check: Check) -> dict[str, Any]:
        raise RuntimeError("CUDA error: out of memory\nat a place")

    def breaks(_check: Check) -> dict[str, Any]:
        raise ValueError("a | b <c>")

    def is_elsewhere(_check: Check) -> dict[str, Any]:
        raise NotHereError("Not here.")

    seen: list[list[str]] = []

    def looks(_check: Check) -> dict[str, Any]:
        written = json.loads((tmp_path / "check.json").read_text(encoding="utf-8"))
        seen.append([one["state"] for one in written["stages"]])
        return {"figure": 1.5, "rows": [{"a": 1}, {"b": "x"}]}

    stages = [stage("one", 0, fails), stage("two", 0, breaks), stage("three", 0, is_elsewhere), stage("four", 0, looks)]
    lines: list[str] = []
    outcomes = run_stages([*stages, stage("five", 0, looks)], check, {"device": "a GPU"}, tmp_path, lines.append)
    assert [o.state for o in outcomes] == ["failed", "failed", "skipped", "done", "done"]
    assert outcomes[0].reason == "Memory ran out: CUDA error: out of memory"
    # What a killed check would leave behind.
    assert seen == [
        ["failed", "failed", "skipped", "running", "not reached"],
        [*["failed"] * 2, "skipped", "done", "running"],
    ]
    text = (tmp_path / "check.md").read_text(encoding="utf-8")
    assert text == page({"device": "a GPU"}, outcomes)
    for part in ("ValueError: a \\| b &lt;c>", "| figure | 1.5 |", "| a | b |", "| 1 |  |", "skipped. Not here."):
        assert part in text
    assert lines[2] == "3/5 three: skipped. Not here."


@pytest.mark.slow
def test_the_whole_check_runs_on_a_cpu_at_tiny_sizes(tmp_path: Path) -> None:
    output = tmp_path / "out"
    code = leave(["doctor", "--gpu", "--device", "cpu", "--smoke", "--output", str(output)])
    report = json.loads((output / "check.json").read_text(encoding="utf-8"))
    stages = {one["name"]: one for one in report["stages"]}
    states = {name: one["state"] for name, one in stages.items()}
    assert states == {s.name: "skipped" if s.name in {*CUDA_ONLY, "scaling"} else "done" for s in STAGES}, report
    assert code == 0
    assert (report["version"], report["scale"], report["minutes"], report["device_type"]) == (1, "smoke", 8.0, "cpu")
    assert all("The device is cpu" in stages[name]["reason"] for name in CUDA_ONLY)
    assert sorted(path.name for path in output.iterdir()) == ["check.json", "check.md"]
    text = (output / "check.md").read_text(encoding="utf-8")
    assert [s.title for s in STAGES if f"\n## {s.title}\n" not in text] == []

    figures = {name: one["figures"] for name, one in stages.items()}
    assert set(figures["rates"]) == {"matmul bfloat16, TFLOP/s", "matmul float32, TFLOP/s", "copy, GB/s"}
    rows = figures["steps"]["steps"]
    ways = [(batch, way) for batch in SMOKE.batches for way in ("eager", "cudnn.benchmark", "compile")]
    assert [(row["batch"], row["way"]) for row in rows] == ways
    assert not any("note" in row for row in rows), rows
    assert all(row["step, ms"] > 0 and row["host, ms"] > 0 and row["plan, GiB"] > 0 for row in rows)
    assert all(0 < row["share of matmul"] < 1 for row in rows)
    assert [row["numbers"] for row in figures["labels"]["labels"]] == ["float64", "float32", "bfloat16"]
    assert figures["labels"]["labels"][0]["share of labels that differ"] == 0
    kernels = figures["kernels"]["kernels of a step"]
    assert len(kernels) == 25
    assert sorted(kernels, key=lambda row: -row["ms"]) == kernels
    assert all(value >= 0 for value in figures["loop"].values())
    assert figures["loop"]["validation, images/s"] > 0
    assert [row["norm"] for row in figures["norms"]["steps"]] == ["none", "weight", "batch", "group"]
    assert all(row["step, ms"] > 0 for row in figures["norms"]["steps"])
    assert figures["prediction"]["images/s"] > 0
    assert 0 <= figures["large"]["difference of gradients"] < 0.02
    assert "unet-dist: error: " in figures["lost"]["sentence"]
    assert len({figures["repeatability"][f"SHA-256, {name}"] for name in ("whole", "again", "resumed")}) == 1


def test_without_minutes_only_what_takes_none_is_done(tmp_path: Path) -> None:
    assert leave(["doctor", "--gpu", "--device", "cpu", "--smoke", "--minutes", "1e-4", "--output", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "check.json").read_text(encoding="utf-8"))
    assert [one["state"] for one in report["stages"]] == ["done", *["skipped"] * (len(STAGES) - 1)]
    assert all("were left. Set a larger --minutes." in one["reason"] for one in report["stages"][1:])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--smoke"], "smoke: got True, expected none without gpu"),
        (["--gpu", "--device", "cpu"], "--smoke --device cpu tries the check"),
        (["--gpu", "--minutes", "0"], "minutes: got"),
    ],
)
def test_what_has_no_effect_or_no_end_is_refused(
    words: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert leave(["doctor", *words]) != 0
    assert said in capfd.readouterr().err


def test_scaling_reads_what_bench_writes(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[str, ...]] = []

    def program(_check: Check, command: str, *words: str) -> None:
        called.append(words)
        config, options = parse(command, words)
        assert config.schedule.batch_size == 16
        assert options.bench_rounds == 3
        folder = Path(config.run.output_path)
        folder.mkdir(parents=True)
        scaling = {"real loop, images/s": {"median": 7.7, "low": 7.6, "high": 7.8}}
        (folder / "bench.json").write_text(json.dumps({"scaling": scaling}), encoding="utf-8")

    monkeypatch.setattr(gpu_stages, "_program", program)
    found = gpu_stages.scaling_on(check, 8)
    assert "--processes=8" in called[0]
    rows = [{"what": "real loop, images/s", "median": 7.7, "low": 7.6, "high": 7.8}]
    assert found == {"processes": 8, "times as fast as one": rows}
