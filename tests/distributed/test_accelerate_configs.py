"""Proves that each file of configs/accelerate starts the number of processes it says, on a machine without a GPU too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ports import free_ports

CONFIGS = Path(__file__).resolve().parents[2] / "configs/accelerate"

# Notes its place among the processes, in a file of its own. No torch: what is tested is the launcher.
PLACE = """\
import json, os, pathlib
keys = ("RANK", "WORLD_SIZE", "ACCELERATE_USE_CPU", "ACCELERATE_MIXED_PRECISION")
pathlib.Path(os.environ.get("RANK", "0") + ".json").write_text(json.dumps([os.environ.get(key) for key in keys]))
"""


def start(config: str, folder: Path, *words: str) -> subprocess.Popen[str]:
    """Start accelerate with a config file in the folder."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ACCELERATE_")}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / config), *words]
    return subprocess.Popen(
        [*command, "-m", "place"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.processes
def test_each_config_starts_what_it_says(tmp_path: Path) -> None:
    ports = [str(port) for port in free_ports(2)]
    nodes = (
        "--num_machines",
        "2",
        "--num_processes",
        "2",
        "--main_process_ip",
        "127.0.0.1",
        "--main_process_port",
        ports[0],
    )
    launches: dict[str, tuple[list[tuple[str, ...]], int]] = {  # folder -> (what is launched, processes it must be)
        "one_gpu": ([("one_gpu.yaml",)], 1),
        "cpu_processes": ([("cpu_processes.yaml", "--main_process_port", ports[1])], 2),
        "several_nodes": ([("several_nodes.yaml", *nodes, "--machine_rank", rank) for rank in "01"], 2),
        "several_gpus": ([("several_gpus.yaml",)], 0),
    }
    assert {config.name for config in CONFIGS.iterdir()} == {commands[0][0] for commands, _ in launches.values()}
    processes = {}
    for name, (commands, _) in launches.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "place.py").write_text(PLACE, encoding="utf-8")
        processes[name] = [start(command[0], tmp_path / name, *command[1:]) for command in commands]

    printed = {name: [process.communicate(timeout=120)[0] for process in group] for name, group in processes.items()}
    for name, (_, world_size) in launches.items():
        places = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((tmp_path / name).glob("*.json"))]
        if world_size == 1:
            assert places == [[None, None, "False", "no"]], printed[name]
        else:
            assert places == [[str(rank), str(world_size), None, "no"] for rank in range(world_size)], printed[name]
    assert "`--num_processes`" in printed["several_gpus"][0]  # the file leaves the number to whoever launches
