"""Proves the files to begin with: the config is one that runs, and the scripts are those of the repository, also in a wheel."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

from unet_dist.cli import parse, run
from unet_dist.config.sections import KEYS, Config
from unet_dist.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def test_config_holds_every_key_with_its_default(tmp_path: Path) -> None:
    run(["init", "config", "--output", str(tmp_path)])
    text = (tmp_path / "config.yaml").read_text(encoding="utf-8")
    assert parse("train", [str(tmp_path / "config.yaml")])[0] == Config()
    assert re.findall(r"^(?:# )?(\w+):(?: |$)", text, re.MULTILINE) == list(KEYS)
    everything = tmp_path / "all.yaml"
    everything.write_text(re.sub(rf"^# (?=({'|'.join(KEYS)}): )", "", text, flags=re.MULTILINE), encoding="utf-8")
    assert parse("train", [str(everything)])[0] == Config()


@pytest.mark.parametrize(
    ("kind", "folders"), [("accelerate", ["configs/accelerate"]), ("slurm", ["configs/accelerate", "launch/slurm"])]
)
def test_scripts_are_the_repositorys(tmp_path: Path, kind: str, folders: list[str]) -> None:
    run(["init", kind, "--output", str(tmp_path)])
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    expected = sorted(str(path.relative_to(ROOT)) for folder in folders for path in (ROOT / folder).iterdir())
    assert written == expected
    assert all((tmp_path / place).read_bytes() == (ROOT / place).read_bytes() for place in written)


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config\.yaml is there already\. Set another --output"):
        run(["init", "config", "--output", str(tmp_path)])
    assert (tmp_path / "config.yaml").read_text(encoding="utf-8") == "mine"
    run(["init", "config", "--output", str(tmp_path), "--overwrite"])
    assert (tmp_path / "config.yaml").read_text(encoding="utf-8") != "mine"


def test_wheel_takes_every_template_along() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    patterns = setup["options.package_data"]["unet_dist.templates"].split()
    templates = ROOT / "unet_dist/templates"
    taken = {path for pattern in patterns for path in templates.glob(pattern) if path.is_file()}
    assert len(taken) >= 10
    assert {path for folder in ("slurm", "configs/accelerate") for path in (templates / folder).iterdir()} <= taken
