"""Proves that a fault of the user, the disk or the launcher is one sentence and exit code 2, in time, and that the last good
state stays. docs/evidence/faults.md lists all faults and the tests of each; here are those that no module's own test can show.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.faults.runs import TINY, model_of, sentence_of, train
from unet_dist.processes.failing import is_lost_peer, is_timeout
from unet_dist.runs.checkpoint import list_checkpoints, state_digest
from unet_dist.runs.metrics_log import MetricsLog, read_metrics
from unet_dist.storage.files import digest

ROOT = Path(__file__).resolve().parents[2]
# -------------------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("!!python/object/apply:os.mkdir [executed]", "not readable as YAML"),
        ("[" * 3000, "not readable as YAML"),
        ("seed: {a: 1}", "seed: got "),
        ("output_path: null", "output_path: got None, expected a word in UTF-8. Change output_path"),
        ("output_path: ''", "output_path: got '', expected a word"),
        ('data_path: "a\\0b"', "data_path: got 'a\\x00b', expected a word without null characters"),
        ("total_steps: .inf", "total_steps: got "),
    ],
)
def test_hostile_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    text: str,
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(text, encoding="utf-8")
    assert complaint in sentence_of(capfd, "run.yaml")
    assert os.listdir(tmp_path) == ["run.yaml"]


def test_aliases_that_multiply_do_not_fill_the_memory(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Ten lists of nine lists each: 3.5 billion entries, were they copied."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{new}: &{new} [{', '.join(['*' + old] * 9)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)]
    file = tmp_path / "run.yaml"
    file.write_text("\n".join(lines), encoding="utf-8")
    assert "unknown key 'a'" in sentence_of(capfd, str(file))


@pytest.mark.parametrize("place", ["file", "file/below", "x" * 300, "/proc/unet_dist"])
def test_output_folder_that_cannot_be(tmp_path: Path, capfd: pytest.CaptureFixture[str], place: str) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    sentence = sentence_of(capfd, *TINY, "--output_path", str(tmp_path / place))
    assert sentence.startswith("output_path: cannot write to ")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--data_path", "/dev/zero"], "data_path: /dev/zero is a file."),
        (["--resume", "/etc"], "/etc: not a whole checkpoint: state.json is missing."),
        (["--class_weights", "[1, 2]"], "class_weights: got 2 numbers, expected 35"),
        (["--augmentation", "[{name: os.system}]"], "augmentation: got name 'os.system', expected the name of an"),
        (["--base_channels", "1000000"], "base_channels, depth: got a network of "),
        (["--batch_size", "1000000000"], "batch_size, input_size: got 1000000000 windows of 40x40 at a time"),
        (["--batch_size", "9" * 23], f"batch_size: got {'9' * 23}, expected 2147483647 at most."),
        (["--expected_processes", "3"], "expected_processes: got 1 process, expected 3."),
    ],
)
def test_word_that_asks_too_much(
    tmp_path: Path, cache: Path, capfd: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    size = words[0] == "--data_path" and ("--synthetic_images", "100", "--synthetic_size", "1080x1920")
    where = ("--cache_path", str(cache), "--output_path", str(tmp_path / "run"))
    assert sentence_of(capfd, *TINY, *(size or ()), *where, *words).startswith(complaint)


# -------------------------------------------------------------------------------------------------------------- state


def damage_tensor(folder: Path) -> None:
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def set_state(folder: Path, **changes: object) -> None:
    """Change what a state says, with a digest that fits it."""
    state = {**json.loads((folder / "state.json").read_text(encoding="utf-8")), **changes}
    state["sha256"]["state.json"] = state_digest(state)
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")


@pytest.mark.parametrize("kind", ["tensor", "half JSON", "deep JSON", "step of words", "config of numbers"])
def test_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    run_folder: Path, finished: Path, cache: Path, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    """And ends with the bytes it had."""
    newest = list_checkpoints(run_folder / "checkpoints")[-1]
    if kind == "tensor":
        damage_tensor(newest)
    elif kind == "half JSON":
        os.truncate(newest / "state.json", 50)
    elif kind == "deep JSON":
        (newest / "state.json").write_text("[" * 100_000, encoding="utf-8")
    else:
        set_state(newest, **({"step": "four"} if kind == "step of words" else {"config": 4}))
    shutil.rmtree(run_folder / "last")
    code, out, _ = train(capfd, *TINY, "--cache_path", str(cache), "--output_path", str(run_folder))
    assert code == 0
    assert "Taking the next older one." in out
    assert "Resuming at step 2 of 4" in out
    assert model_of(run_folder) == model_of(finished)


def test_run_killed_before_its_first_checkpoint_says_that_it_begins_again(
    run_folder: Path, finished: Path, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for left in ("checkpoints", "best", "last"):
        shutil.rmtree(run_folder / left)
    _, out, _ = train(capfd, *TINY, "--cache_path", str(cache), "--output_path", str(run_folder))
    assert "An earlier start of this run left no checkpoint, so it begins at step 0 again." in " ".join(out.split())
    assert model_of(run_folder) == model_of(finished)


def test_foreign_tensors_with_a_right_digest_are_refused(
    run_folder: Path, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    newest = list_checkpoints(run_folder / "checkpoints")[-1]
    save_file({"weight": torch.zeros(3)}, newest / "model.safetensors")
    names = ("model.safetensors", "optimizer.safetensors")
    set_state(newest, sha256={name: digest(newest / name) for name in names})
    before = model_of(run_folder)
    sentence = sentence_of(capfd, *TINY, "--cache_path", str(cache), "--output_path", str(run_folder))
    assert sentence.startswith("The checkpoint of step 4 is of another network: ")
    assert model_of(run_folder) == before


def test_progress_of_another_release_is_refused(
    run_folder: Path, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    set_state(list_checkpoints(run_folder / "checkpoints")[-1], progress={"epoch": 3})
    sentence = sentence_of(capfd, *TINY, "--cache_path", str(cache), "--output_path", str(run_folder))
    assert sentence.startswith("The checkpoint of step 4 holds another kind of progress: ")


def test_changed_setting_is_listed_and_refused(
    run_folder: Path, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = (*TINY, "--cache_path", str(cache), "--output_path", str(run_folder), "--learning_rate", "0.1")
    before = {path: path.read_bytes() for path in run_folder.rglob("*.safetensors")}
    assert "with other settings: learning_rate: 0.0005 -> 0.1." in sentence_of(capfd, *words)
    assert {path: path.read_bytes() for path in run_folder.rglob("*.safetensors")} == before


@pytest.mark.parametrize("key", ["warmup_fraction", "norm"])
def test_key_that_an_older_checkpoint_lacks_was_at_its_default(
    run_folder: Path, cache: Path, capfd: pytest.CaptureFixture[str], key: str
) -> None:
    """A release that adds a key resumes the runs of the one before; what the old one never did is a change."""
    newest = list_checkpoints(run_folder / "checkpoints")[-1]
    config = json.loads((newest / "state.json").read_text(encoding="utf-8"))["config"]
    del config[key]
    set_state(newest, config=config)
    words = (*TINY, "--cache_path", str(cache), "--output_path", str(run_folder))
    assert train(capfd, *words)[0] == 0
    other = {"warmup_fraction": ("0.3", "0.1"), "norm": ("'none'", "weight")}[key]
    sentence = sentence_of(capfd, *words, f"--{key}", other[1])
    assert f"with other settings: {key}: {other[0]} -> " in sentence


def test_another_precision_is_said_and_goes_on(
    run_folder: Path, finished: Path, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As when a run that a GPU began in bf16 resumes without one."""
    newest = list_checkpoints(run_folder / "checkpoints")[0]
    shutil.rmtree(list_checkpoints(run_folder / "checkpoints")[1])
    config = json.loads((newest / "state.json").read_text(encoding="utf-8"))["config"]
    set_state(newest, config={**config, "mixed_precision": "bf16"})
    code, out, _ = train(capfd, *TINY, "--cache_path", str(cache), "--output_path", str(run_folder))
    assert code == 0
    assert "Resuming in another precision: mixed_precision bf16 -> no." in " ".join(out.split())
    assert model_of(run_folder) == model_of(finished)


@pytest.mark.parametrize("line", ["[1]", '{"split": "train"}', '{"step": "two"}', "\x00\x01", "[" * 100_000])
def test_damaged_log_costs_its_damaged_lines_only(tmp_path: Path, line: str) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (1, 2):
        log.append({"step": step, "split": "train"})
    with log.path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    log.rewind(2)
    assert [record["step"] for record in read_metrics(log.path)] == [1, 2]


# ---------------------------------------------------------------------------------------------------------- processes


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({"MASTER_PORT": "http"}, "MASTER_PORT: got 'http' from the launcher, expected a whole number."),
        ({"MASTER_PORT": "99999"}, "MASTER_PORT: got 99999, expected 0 to 65535."),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE: got 'two' from the launcher, expected a whole number."),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "RANK: got 0 of 0 processes from the launcher"),
    ],
)
def test_broken_launch(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    environment: dict[str, str],
    complaint: str,
) -> None:
    good = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    for key, value in {**good, **environment}.items():
        monkeypatch.setenv(key, value)
    assert sentence_of(capfd, *TINY, "--output_path", str(tmp_path / "run")).startswith(complaint)


def test_port_that_another_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as holder:
        holder.bind(("0.0.0.0", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for key, value in place.items():
            monkeypatch.setenv(key, value)
        sentence = sentence_of(capfd, *TINY, "--output_path", str(tmp_path / "run"), "--collective_timeout_s", "5")
    assert sentence.startswith(f"MASTER_ADDR and MASTER_PORT: the processes could not meet at 127.0.0.1:{port}: ")


def test_lost_process_is_told_from_an_error_of_our_own() -> None:
    text = "[/pytorch/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:9355: Connection reset by peer."
    assert is_lost_peer(RuntimeError(text))
    assert not is_lost_peer(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_lost_peer(ValueError(text))
    text = "[/pytorch/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 3000ms for recv operation to complete"
    assert is_timeout(RuntimeError(text))
    assert not is_lost_peer(RuntimeError(text))


# -------------------------------------------------------------------------------------------------------------- table


def test_every_row_of_the_table_names_a_test_that_exists() -> None:
    rows = [
        line for line in (ROOT / "docs/evidence/faults.md").read_text(encoding="utf-8").splitlines() if "::" in line
    ]
    assert len(rows) >= 30
    for row in rows:
        for file, name in re.findall(r"`([\w/]+\.py)::(\w+)`", row):
            assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), row


def test_foreign_tensors_are_not_the_networks_own(finished: Path) -> None:
    """The model of a run is what its last checkpoint holds: what the tests above compare."""
    newest = list_checkpoints(finished / "checkpoints")[-1]
    saved, last = load_file(newest / "model.safetensors"), load_file(finished / "last/model.safetensors")
    assert saved.keys() == last.keys()
    assert all(torch.equal(saved[name], last[name]) for name in saved)
