"""Proves the command: what it prints and writes for one process and for two, what it compares, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.benchmark.conftest import leave
from tests.distributed.processes import launch
from unet_dist.benchmark.tables import layer_table
from unet_dist.cli import parse

Words = Callable[..., list[str]]
SPREAD = {"median", "low", "high"}


def report_of(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "bench.json").read_text(encoding="utf-8"))
    for key, kind in {"version": int, "date": str, "device": str, "threads": int, "torch": str, "precision": str,
                      "world_size": int, "limits": dict, "config": dict, "results": list}.items():  # fmt: skip
        assert isinstance(report[key], kind), key
    for result in report["results"]:
        for name, spread in result["figures"].items():
            assert set(spread) == SPREAD, name
            assert spread["low"] <= spread["median"] <= spread["high"], name
    return report


@pytest.mark.slow
def test_one_process(words: Words, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "metrics.jsonl").write_text("of a run\n", encoding="utf-8")
    assert leave(words(tmp_path)) == 0
    (result,) = report_of(tmp_path)["results"]
    assert {"share_of_matmul", "loop_overhead", "data_wait", "images_per_s", "prediction_over_bare"} <= set(
        result["figures"]
    )
    amounts = result["amounts"]
    assert (amounts["crops"], amounts["window_pixels"], amounts["world_size"]) == (4, 4 * 60 * 60, 1)
    assert result["predicted_bytes"] > 0
    layers = report_of(tmp_path)["layers"]
    assert sum(layer["flops"] for layer in layers) == amounts["flops"]
    assert {"name", "seconds", "flops", "num_bytes", "limit_s", "share_of_limit"} == set(layers[0])
    with Image.open(tmp_path / "bench.png") as picture:
        assert picture.width > 500
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench.json", "bench.png", "metrics.jsonl"]
    assert (tmp_path / "metrics.jsonl").read_text(encoding="utf-8") == "of a run\n", "a run in the folder is left alone"
    printed = capsys.readouterr().out
    assert "overhead over the bare step" in printed
    assert "encoder.0.conv1" in printed
    tables = [line for line in printed.splitlines() if "│" in line or "━" in line]
    assert max(map(len, tables)) <= 80


@pytest.mark.parametrize(
    ("compare", "names"),
    [
        ("micro_batch_size=1,4", ["micro_batch_size 1", "micro_batch_size 4"]),
        ("mixed-precision=no,auto", ["mixed_precision no", "mixed_precision auto"]),
        ("baseline", ["the usual loop", "unet-dist"]),
    ],
)
def test_settings_in_turn(
    words: Words, tmp_path: Path, capsys: pytest.CaptureFixture[str], compare: str, names: list[str]
) -> None:
    assert leave(words(tmp_path, compare=compare)) == 0
    report = report_of(tmp_path)
    assert [result["name"] for result in report["results"]] == names
    assert [result["rounds"] for result in report["results"]] == [report["results"][0]["rounds"]] * 2
    first, second = report["times_as_fast_as_the_first"]
    assert first["loop_s"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert set(second["loop_s"]) == SPREAD
    printed = capsys.readouterr().out
    assert all(name.split()[0] in printed for name in names)
    assert max(len(line) for line in printed.splitlines() if "│" in line) <= 80


@pytest.mark.slow
@pytest.mark.processes
def test_two_processes_against_one_alone(words: Words, tmp_path: Path) -> None:
    jobs = [words(tmp_path / "weak"), words(tmp_path / "split", batch_size=1, input_size=92, tile_size=60)]
    with launch(2, jobs, tmp_path / "launch") as group:
        assert group.wait() == [0, 0], group.said
        assert [group.codes(rank) for rank in range(2)] == [[0, 0], [0, 0]], group.said
        assert group.said[1] == "", "only the first process speaks"
    report = report_of(tmp_path / "weak")
    alone, together = report["results"]
    assert (alone["amounts"]["crops"], together["amounts"]["crops"]) == (2, 4)
    assert alone["amounts"]["flops"] == together["amounts"]["flops"], "as much work a process"
    assert together["amounts"]["image_pixels"] == 2 * alone["amounts"]["image_pixels"]
    assert set(report["scaling"]) == {"bare step, images/s", "real loop, images/s", "prediction, megapixels/s"}
    alone, together = report_of(tmp_path / "split")["results"]
    assert alone["amounts"]["crops"] == together["amounts"]["crops"] == 1, "one process has all tiles of the sample"
    assert alone["amounts"]["flops"] * 5 == together["amounts"]["flops"] * 9, "5 and 4 tiles"


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"bench_rounds": 0}, "bench_rounds: got 0, expected 1 or more. Change --bench_rounds."),
        ({"bench_seconds": -1}, "bench_seconds: got -1.0, expected a finite number above 0. Change --bench_seconds."),
        ({"compare": "fast"}, "compare: got fast, expected KEY=VALUE,VALUE,... or baseline. Change --compare."),
        ({"compare": "tile_size=60"}, "compare: got tile_size=60, expected KEY=VALUE,VALUE,... or baseline."),
        ({"compare": "tile_size=60,60"}, "compare: got tile_size=60,60, expected values that differ."),
        ({"compare": "tilesize=60,92"}, "compare: unknown key 'tilesize'. Did you mean --tile_size"),
        ({"compare": "tile_size=60,big"}, "tile_size: got 'big', expected a whole number or null."),
        ({"compare": "batch_size=4,0"}, "batch_size: got 0, expected 1 or more."),
        ({"compare": "total_steps=1,2"}, "compare: got total_steps, expected a key that changes how a run is computed"),
        ({"compare": "baseline", "input_size": "full"}, "compare: got baseline with input_size full, expected crops"),
        ({"debug": "true"}, "debug: got true, expected false: bench measures runs as they are. Remove --debug."),
        ({"output_path": "/proc/no/such"}, "output_path: cannot write to /proc/no/such"),
    ],
)
def test_refusals(
    words: Words, tmp_path: Path, capsys: pytest.CaptureFixture[str], keys: dict[str, Any], sentence: str
) -> None:
    assert leave(words(**{"output": tmp_path, **keys})) == 2
    assert capsys.readouterr().err.startswith(f"unet-dist: error: {sentence}")


def test_compared_values_are_read_as_the_key_is() -> None:
    config, options = parse("bench", ["--compare", "tile-size=60, null", "--input_size", "92"])
    configs = options.settings(config)
    assert options.bench_steps == 20
    assert {name: config.run.tile_size for name, config in configs.items()} == {
        "tile_size 60": 60,
        "tile_size null": None,
    }
    assert all(config.schedule.input_size == 92 for config in configs.values())


def test_an_empty_layer_is_no_division_by_zero() -> None:
    from unet_dist.benchmark.ceilings import Ceilings
    from unet_dist.benchmark.layers import MeasuredLayer

    table = layer_table([MeasuredLayer("still", 0.0, 0, 0, 0.0)], Ceilings(1.0, 1.0))
    assert table.row_count == 2


def test_the_layers_of_most_time_are_shown_of_many() -> None:
    from unet_dist.benchmark.ceilings import Ceilings
    from unet_dist.benchmark.layers import MeasuredLayer

    names = [f"network.encoder.stages.{number}.attention" for number in range(60)]
    layers = [MeasuredLayer(name, float(number % 50), 1, 1, 1.0) for number, name in enumerate(names)]
    table = layer_table(layers, Ceilings(1.0, 1.0))
    first = list(table.columns[0].cells)
    assert first[0].endswith("stages.10.attention"), "in the order of the network"
    assert first[-2:] == ["20 others", "all"]
    assert all(len(str(name)) <= 24 for name in first)
