"""The lower bounds of the requirements: each is stated, and leaves out releases that are known to be unsafe for what we do."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

SETUP = Path(__file__).resolve().parents[2] / "setup.cfg"
UNSAFE = {
    "torch": ("2.5.1", "CVE-2025-32434: torch.load ran code in spite of weights_only"),
    "Pillow": ("10.2.0", "CVE-2024-28219, and CVE-2023-4863 in the libwebp of 10.0.0"),
    "PyYAML": ("5.3.1", "CVE-2020-14343: code in full_load"),
    "Jinja2": ("3.1.5", "CVE-2025-27516: a way out of the sandbox"),
    "numpy": ("1.21.0", "CVE-2021-33430: a buffer overflow"),
}


def requirements() -> list[Requirement]:
    parser = configparser.ConfigParser()
    parser.read(SETUP)
    parts = [parser["options"]["install_requires"], *parser["options.extras_require"].values()]
    lines = [line.split(" #")[0].strip() for part in parts for line in part.splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_each_has_a_lower_bound() -> None:
    unbound = [one.name for one in requirements() if not any(part.operator in (">=", "==") for part in one.specifier)]
    assert set(unbound) <= {"openslide-bin", "types-PyYAML"}, "binaries beside a bound package, and types for the tests"


@pytest.mark.parametrize("name", UNSAFE)
def test_unsafe_releases_are_left_out(name: str) -> None:
    last_unsafe, reason = UNSAFE[name]
    (found,) = [one for one in requirements() if re.sub("_", "-", one.name).lower() == name.lower()][:1]
    assert not found.specifier.contains(Version(last_unsafe)), reason
