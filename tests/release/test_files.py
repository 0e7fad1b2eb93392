"""Proves that the files of a release agree: one version, configs that name nothing outside, containers that copy what exists."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

import unet_dist

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


def test_changes_are_listed_once_and_in_their_release() -> None:
    """Git merges the list by union, which can repeat a line or append it to a release that is out."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    entries = re.findall(r"^ *- .+(?:\n(?! *- ) +.+)*", text, re.MULTILINE)
    changes = [entry.strip() for entry in entries if not re.fullmatch(r" *- \*\*[^*]+\*\*", entry)]
    assert len(changes) > 100
    assert sorted(set(changes)) == sorted(changes)
    ends = [section.rstrip().rpartition("\n- ")[2] for section in text.split("\n## ")[2:]]
    assert ends[0].startswith("A restart after an NCCL error works.")
    assert ends[1].startswith("**Failures**\n  - A hanging or killed process")


def test_version_is_one() -> None:
    assert f"\nversion: {unet_dist.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    releases = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert releases[0] == "Unreleased"
    assert re.fullmatch(rf"{re.escape(unet_dist.__version__)} \(\d{{4}}-\d\d-\d\d\)", releases[1])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_name_no_path_outside_and_say_where_data_are_from(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    paths = [str(value) for key, value in values.items() if key.endswith("_path")]
    assert not [value for value in paths if value.startswith(("/", "~")) or ".." in Path(value).parts]
    if values.get("data_path", "synthetic").startswith("data/"):
        assert re.search(r"^# Data: .*[a-z]+[.](?:com|net)/", text, re.MULTILINE)


def test_dockerfile_is_well_formed_and_copies_what_exists() -> None:
    text = (ROOT / "containers/Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert lines[0][0] == "FROM"
    assert {name for name, _ in lines} <= {"FROM", "ARG", "COPY", "RUN", "ENV", "WORKDIR", "ENTRYPOINT", "CMD"}
    sources = [source for name, rest in lines if name == "COPY" for source in rest.split()[:-1]]
    check_sources(sources)
    for name, rest in lines:
        if name in ("ENTRYPOINT", "CMD"):
            assert all(isinstance(word, str) for word in json.loads(rest))
        elif name == "RUN":
            assert shlex.split(rest)


def test_apptainer_definition_is_well_formed_and_copies_what_exists() -> None:
    text = (ROOT / "containers/unet_dist.def").read_text(encoding="utf-8")
    header, *sections = re.split(r"^%", text, flags=re.MULTILINE)
    keys = dict(line.split(": ", 1) for line in header.splitlines() if line and not line.startswith("#"))
    assert set(keys) == {"Bootstrap", "From"}
    named = {section.partition("\n")[0]: section.partition("\n")[2] for section in sections}
    assert set(named) == {"files", "post", "runscript", "test"}
    check_sources([line.split()[0] for line in named["files"].splitlines() if line.strip()])


def check_sources(sources: list[str]) -> None:
    """What a wheel is made of must come along, and exist."""
    assert {"README.md", "setup.cfg", "pyproject.toml", "unet_dist", "configs", "launch"} <= set(sources)
    assert not [source for source in sources if not (ROOT / source).exists()]


def test_workflows_are_read_as_yaml_and_name_files_that_exist() -> None:
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
        steps = [step for job in stored["jobs"].values() for step in job["steps"]]
        for step in steps:
            assert ("uses" in step) != ("run" in step), step
            for place in re.findall(r"\b(?:launch|docs|tests|configs)/[\w./-]+\.\w+", step.get("run", "")):
                assert (ROOT / place).exists(), place


def test_workflows_may_do_no_more_than_they_must() -> None:
    """Actions are named by their commit; what may publish runs no command of ours; no text of others becomes a command."""
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        text = path.read_text(encoding="utf-8")
        stored = yaml.safe_load(text)
        assert stored["permissions"] == {"contents": "read"}, path
        assert not {"pull_request_target", "workflow_run", "issue_comment"} & set(stored[True]), path  # YAML's "on"
        for use in re.findall(r"uses: (.*)", text):
            assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", use), (path, use)
        for job in stored["jobs"].values():
            assert 5 <= job["timeout-minutes"] <= 180, path  # six hours where nobody says
            if "write" in job.get("permissions", {}).values():
                assert not [step for step in job["steps"] if "run" in step], path
            for step in job["steps"]:
                assert "${{" not in step.get("run", ""), (path, step)
                if step.get("uses", "").startswith("actions/checkout@"):
                    assert step["with"]["persist-credentials"] is False, path
