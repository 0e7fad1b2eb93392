"""Proves that `prepare` ends with the command that trains on the same data."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.data.pictures import write_folder
from unet_dist.cli import main, parse
from unet_dist.config.choosing import leaves_the_choice

pytestmark = pytest.mark.usefixtures("own_process")


def test_the_next_command_has_the_keys_of_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "my data", num_pairs=6, height=16, width=16, num_classes=3)
    given = ["--data_path", str(tmp_path / "my data"), "--label_map", "{0: 0, 1: 1, 2: 1}", "--num_classes", "2"]
    given += ["--cache_path", str(tmp_path / "cache")]
    with pytest.raises(SystemExit) as leaving:
        main(["prepare", *given, "--output_path", str(tmp_path / "out")])
    assert leaving.value.code == 0
    line = " ".join(capsys.readouterr().out.split()).rpartition("Next: ")[2]
    assert """--label_map '{"0": 0, "1": 1, "2": 1}'""" in line
    program, command, *words = shlex.split(line)
    assert (program, command) == ("unet-dist", "train")
    config, _ = parse("train", words)
    assert config.data.data_path == str(tmp_path / "my data")
    assert config.data == parse("train", given)[0].data
    assert leaves_the_choice(config)
