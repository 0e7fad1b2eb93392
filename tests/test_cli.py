"""Proves how words become a config: precedence, spelling, switches, and the sentence for each word that cannot be read.

That --help answers at once is measured by hand; here only that parsing loads nothing heavy.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from unet_dist import cli
from unet_dist.cli import main, parse, run
from unet_dist.command_line.command import find_command, find_commands
from unet_dist.config.sections import KEYS
from unet_dist.errors import ConfigError, DataError

ROOT = Path(__file__).resolve().parents[1]


def parsed(*words: str) -> dict[str, Any]:
    """The flat config of `train` with these words."""
    return dict(parse("train", words)[0].flat())


@pytest.fixture
def write_yaml(tmp_path: Path) -> Any:
    """Write a config file; returns its path as a word."""

    def write(text: str) -> str:
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


# ------------------------------------------------------------------------------------------------------- what is read


def test_defaults_then_file_then_words(write_yaml: Any) -> None:
    file = write_yaml("seed: 7\nlearning_rate: 3e-4\nhorizontal_flip: no\n")
    values = parsed(file, "--learning_rate", "1e-2")
    assert (values["seed"], values["learning_rate"], values["horizontal_flip"]) == (7, 1e-2, False)
    assert values["batch_size"] == 16
    assert parsed("--learning_rate", "1e-2", file) == values  # wherever the file stands


def test_the_command_of_the_reference_task() -> None:
    values = parsed(
        *("--data_path", "streets", "--input_size", "724", "--batch_size", "16", "--total_steps", "4000"),
        *("--eval_steps", "100", "--learning_rate", "0.0005", "--output_path", "./output", "--seed", "1"),
    )
    expected = {
        "data_path": "streets",
        "input_size": 724,
        "total_steps": 4000,
        "eval_steps": 100,
        "learning_rate": 5e-4,
    }
    assert {key: values[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["--learning-rate", "3e-4"], "learning_rate", 3e-4),
        (["--learning_rate=3e-4"], "learning_rate", 3e-4),
        (["--data-path=a=b"], "data_path", "a=b"),
        (["--data_path", "123"], "data_path", "123"),
        (["--deterministic"], "deterministic", True),
        (["--deterministic", "--seed", "1"], "deterministic", True),
        (["--horizontal-flip", "false"], "horizontal_flip", False),
        (["--max_grad_norm", "null"], "max_grad_norm", None),
        (["--trackers", "[]"], "trackers", []),
        (["--trackers", "[wandb, tensorboard]"], "trackers", ["wandb", "tensorboard"]),
        (["--class_weights", "[1, 0.5]"], "class_weights", [1.0, 0.5]),
        (["--class_weights", "median"], "class_weights", "median"),
        (["--label_map", '{"#804080": 1}'], "label_map", {"#804080": 1}),
        (["--augmentation", "[{name: ColorJitter, p: 0.5}]"], "augmentation", [{"name": "ColorJitter", "p": 0.5}]),
        (["--seed", "1", "--seed", "2"], "seed", 2),
    ],
)
def test_words(words: list[str], key: str, value: Any) -> None:
    assert parsed(*words)[key] == value


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("learning_rate: 3e-4", "learning_rate", 3e-4),  # a word to YAML 1.1
        ("learning_rate: 1", "learning_rate", 1.0),
        ("label_map: {7: 0, 8: 1}", "label_map", {"7": 0, "8": 1}),
        ("class_weights: [1, 2]", "class_weights", [1.0, 2.0]),
        ("max_grad_norm: null", "max_grad_norm", None),
        ("", "seed", 0),
    ],
)
def test_lines_of_a_file(write_yaml: Any, line: str, key: str, value: Any) -> None:
    assert parsed(write_yaml(line))[key] == value


def test_options_of_evaluate() -> None:
    words, options = parse("evaluate", ["output", "--split", "validation", "--tile-size", "572"])
    assert (words, options.split, options.tile_size, options.pictures) == (["output"], "validation", 572, 4)


# ---------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--learning-rat", "1"],
            "Unknown key --learning_rat. Did you mean --learning_rate? --help all lists all keys.",
        ),
        (
            ["--lr", "1"],
            "Unknown key --lr. Here it is --learning_rate (at its peak). --help learning_rate explains it.",
        ),
        (
            ["-s", "3"],
            "Unknown option '-s'. Keys start with two dashes; unet-dist COMMAND --help lists them. A file of this name is ./-s.",
        ),
        (["--total_steps"], "--total_steps: got no value, expected one. (Number of optimizer steps.)"),
        (["--total_steps", "--seed", "1"], "--total_steps: got no value, expected one. (Number of optimizer steps.)"),
        (["--total_steps", "1.5"], "total_steps: got '1.5', expected a whole number. (Number of optimizer steps.)"),
        (["--learning_rate", "x"], "learning_rate: got 'x', expected a number. (Peak learning rate, above 0.)"),
        (
            ["--padding", "full"],
            "padding: got 'full', expected one of valid, same. (valid: convolutions without padding (the "
            "paper's). same: with zeros at the border, which exact tiles cut off.)",
        ),
        (
            ["--trackers", "wandb"],
            "trackers: got 'wandb', expected a list such as [a, b]. (Trackers by their accelerate name: tensorboard, wandb, "
            "trackio, ...)",
        ),
        (
            ["--input_size", "x"],
            "input_size: got 'x', expected a whole number or full. (Side of the training input, px. An even side that "
            "the network cannot take is rounded up. full trains on whole images, each with its own shape.)",
        ),
        (["a.yaml", "b.yaml"], "train: got 2 words without a key (a.yaml b.yaml), expected one CONFIG.yaml at most."),
        (
            ["nowhere.yaml"],
            "Config file: got 'nowhere.yaml', which is not a file; expected a YAML file. Keys start with --.",
        ),
    ],
)
def test_words_that_cannot_be_read(words: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parsed(*words)
    assert str(refusal.value) == sentence


def test_word_for_an_optional_number_is_told_what_none_is_called() -> None:
    with pytest.raises(ConfigError, match=r"^in_channels: got 'None', expected a whole number or null\. "):
        parsed("--in_channels", "None")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("batchsize: 3", "unknown key 'batchsize'. Did you mean --batch_size"),
        ("1: 3", "unknown key 1. --help all lists all keys."),
        ("[1]", "got a list, expected an object. Expected lines of `key: value`."),
        ("a: [", "not readable as YAML: "),
    ],
)
def test_file_that_cannot_be_read(write_yaml: Any, text: str, sentence: str) -> None:
    file = write_yaml(text)
    with pytest.raises(ConfigError) as refusal:
        parsed(file)
    assert str(refusal.value).startswith(f"{file}: {sentence}")


@pytest.mark.parametrize("line", ["seed: 1.5", "seed: true", "learning_rate: abc", "trackers: wandb", "norm: layer"])
def test_value_in_a_file_is_judged_like_a_word(write_yaml: Any, line: str) -> None:
    key, _, value = line.partition(": ")
    with pytest.raises(
        ConfigError, match=f"^{key}: got '{value.capitalize() if value == 'true' else value}', expected "
    ):
        parsed(write_yaml(line))


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_of_the_folder_is_understood(path: Path) -> None:
    said = {line.split(":")[0] for line in path.read_text(encoding="utf-8").splitlines() if line[:1].isalpha()}
    assert said <= set(KEYS)
    assert parse("train", [str(path)])[0].flat()["output_path"] != "output", "each has a folder of its own"


def test_run_is_required() -> None:
    with pytest.raises(ConfigError, match=r"^evaluate: got no RUN, .* Usage: unet-dist evaluate RUN"):
        parse("evaluate", ["--split", "test"])


def test_unknown_command_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"^Unknown command 'trian'\. Did you mean \"train\"\? Valid: "):
        run(["trian"])


def test_main_prints_a_sentence_and_leaves_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["train", "--seed", "x"])
    assert leaving.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("unet-dist: error: seed: got 'x', expected a whole number. ")
    assert err.count("\n") == 1


def test_interrupt_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C before a command listens for it, while libraries load or data are read."""

    def interrupted(_words: Any, **_given: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run", interrupted)
    with pytest.raises(SystemExit) as leaving:
        main(["train"])
    assert leaving.value.code == 130
    assert capsys.readouterr() == ("", "unet-dist: interrupted\n")


def test_error_neither_orders_the_terminal_nor_fails_in_its_encoding() -> None:
    """A file's name may hold escapes, and the terminal's encoding may lack its script."""
    code = "import sys; from unet_dist.cli import main; main(['train', 'a\\x1b[31m\u4eba.yaml'])"
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        check=False,
    )
    assert found.returncode == 2
    assert b"a\\x1b[31m\\u4eba.yaml" in found.stderr.replace(b"\\\\", b"\\")
    assert b"\x1b" not in found.stderr


@pytest.mark.parametrize(
    ("words", "environment", "is_told"),
    [
        (["prepare"], {}, True),
        (["prepare"], {"RANK": "0", "WORLD_SIZE": "2"}, True),
        (["prepare"], {"RANK": "1", "WORLD_SIZE": "2"}, False),
        (["prepare"], {"RANK": "0", "WORLD_SIZE": "2", **cli.LAUNCHER_ENVIRONMENT}, False),  # its starter has told
        (["completion", "bash"], {}, False),
        (["prepare", "--print_config"], {}, False),
    ],
)
def test_a_command_says_at_once_that_it_starts(
    words: list[str],
    environment: dict[str, str],
    is_told: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before torch is loaded, once, and not on stdout, which may be data."""
    for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT", *cli.LAUNCHER_ENVIRONMENT):
        monkeypatch.delenv(key, raising=False)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    seen: list[str] = []
    monkeypatch.setattr(
        "unet_dist.command_line.command.Command.load_run",
        lambda _command: lambda *_words: seen.append(capsys.readouterr().err),
    )
    run(words, is_program=True)
    expected = f"unet-dist {words[0]}: starting; loading takes some seconds\n" if is_told else ""
    assert seen == ([] if "--print_config" in words else [expected])


def test_one_process_needs_no_launcher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever kills it kills the run, and no child of a launcher waits for ever."""
    started: list[int] = []
    monkeypatch.setattr(cli, "_launch", lambda _command, _words, count: started.append(count))
    for count in ("1", "2"):
        with pytest.raises(DataError, match="nowhere"):
            run(["train", "--processes", count, "--total_steps", "1", "--data_path", str(tmp_path / "nowhere")])
    assert started == [2]


# -------------------------------------------------------------------------------------------------------------- help


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"]):
        with pytest.raises(SystemExit) as leaving:
            main(words)
        assert leaving.value.code == 0
        out = capsys.readouterr().out
        assert [name for name in find_commands() if f"\n  {name} " in out] == list(find_commands())


def test_help_of_train_says_the_meaning_of_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    run(["train", "--help", "all"])
    out = capsys.readouterr().out
    text = " ".join(out.split())
    assert [key for key in KEYS if f"--{key} " not in text] == []
    assert (
        "--batch_size INT Crops per optimizer step, over all processes. (default: 16; with data_path alone, chosen"
        in text
    )
    assert "--norm none|weight|batch|group Normalisation. " in text
    assert "--input_size INT|full Side of the training input, px." in text
    assert "Default: no clipping. (with data_path alone, chosen for the data) --loss TEXT" in text, "no default of none"
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("command", find_commands())
def test_every_key_of_a_help_can_be_given(capsys: pytest.CaptureFixture[str], command: str) -> None:
    run([command, "--help", "all"])
    named = re.findall(r"^ +--(\S+) ", capsys.readouterr().out, re.MULTILINE)
    assert named == list(find_command(command).hints)


def test_short_help_shows_ten_keys_at_most_and_names_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    run(["train", "--help"])
    out = capsys.readouterr().out
    explained = re.findall(r"^  --(\S+) ", out, re.MULTILINE)
    assert {"data_path", "output_path", "batch_size", "total_steps", "learning_rate"} <= set(explained)
    assert len(explained) <= 10
    assert [key for key in KEYS if key not in explained and not re.search(rf"\b{key}\b", out)] == []


@pytest.mark.parametrize("command", find_commands())
def test_short_help_of_every_command_fits_a_screen(capsys: pytest.CaptureFixture[str], command: str) -> None:
    run([command, "--help"])
    assert len(re.findall(r"^  --(\S+) ", capsys.readouterr().out, re.MULTILINE)) <= 12


def test_help_says_beside_a_default_where_the_data_choose(capsys: pytest.CaptureFixture[str]) -> None:
    run(["train", "--help", "batch_size"])
    text = " ".join(capsys.readouterr().out.split())
    assert text.endswith("(default: 16; with data_path alone, chosen for the data)")
    run(["train", "--help", "seed"])
    assert "chosen" not in capsys.readouterr().out
    run(["quickstart", "--help", "total_steps"])
    assert "(default: 1000)" in capsys.readouterr().out, "that of its config, not that of train"
    run(["plan", "--help", "batch_size"])
    assert "chosen" not in capsys.readouterr().out, "plan chooses nothing"


def test_help_of_a_key_without_a_command_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    takers = {name for name, command in find_commands().items() if "label_map" in command.hints}
    assert len(takers) > 2
    run(["--help", "--label-map"])
    out = capsys.readouterr().out
    assert out.startswith("  --label_map {A: B, ...}\n")
    named = re.findall(r"Taken by: ([\w\s,]+)\.", out)
    assert {name.strip() for names in named for name in names.split(",")} == takers
    assert out.count("--label_map") == len(named) == 2, "evaluate has a meaning of its own, the others share one"
    run(["--help", "plan"])
    assert capsys.readouterr().out.startswith("usage: unet-dist plan ")
    with pytest.raises(ConfigError, match=r"^Unknown key --lr\. Here it is --learning_rate"):
        run(["--help", "lr"])
    with pytest.raises(ConfigError, match=r"^Unknown key --lable_map\. Did you mean --label_map"):
        run(["--help", "lable_map"])


def test_help_of_one_key(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("seed", "--seed"):
        run(["train", "--help", word])
        assert capsys.readouterr().out.startswith("  --seed INT\n      Seed of the split, ")
    with pytest.raises(ConfigError, match=r"^Unknown key --sede\. Did you mean --seed"):
        run(["train", "--help", "sede"])


def test_print_config_is_a_config(capsys: pytest.CaptureFixture[str], write_yaml: Any) -> None:
    run(["train", "--seed", "7", "--mixed_precision", "no", "--print_config"])
    assert parsed(write_yaml(capsys.readouterr().out)) == parsed("--seed", "7", "--mixed_precision", "no")


@pytest.mark.parametrize(
    ("command", "key", "answer"),
    [
        ("train", "epochs", "Here it is --total_steps (in optimizer steps: epochs x images / batch_size)."),
        ("train", "imgsz", "Here it is --input_size "),
        ("train", "workers", "Here it is --num_workers."),
        ("train", "weights", "Here it is --init_from "),
        ("predict", "weights", "Here it is RUN, the first word."),
        ("predict", "source", "Here it is INPUT..., the words after RUN."),
    ],
)
def test_key_of_another_toolkit_is_answered_with_ours(command: str, key: str, answer: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse(command, [f"--{key}", "3"])
    assert str(refusal.value).startswith(f"Unknown key --{key}. {answer}")


def test_number_or_name_of_thousands_of_characters_is_a_sentence(write_yaml: Any) -> None:
    for words in (["--seed", "9" * 5000], [write_yaml(f"seed: {'9' * 5000}")], ["x" * 5000], [f"--{'y' * 5000}", "1"]):
        with pytest.raises(ConfigError) as refusal:
            parsed(*words)
        assert len(str(refusal.value)) < 600


def test_parsing_loads_nothing_heavy() -> None:
    """What makes --help slow: torch alone takes seconds."""
    code = (
        "import sys; from unet_dist.cli import run; run(['train', '--help']); run(['evaluate', '--help'])\n"
        "heavy = {'torch', 'numpy', 'accelerate', 'albumentations', 'datasets', 'PIL', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE)


def test_no_start_loads_the_compiler(tmp_path: Path) -> None:
    """torch's compiler and sharded tensors: 3 of the 8 seconds that a training took to start."""
    small = "--synthetic_images 4 --synthetic_size 64x64 --input_size 32 --padding same --context_px 0 --base_channels 2 --depth 1"
    words = f"train --data_path synthetic {small} --batch_size 1 --total_steps 1 --output_path {tmp_path / 'run'}"
    code = (
        f"import sys; from unet_dist.cli import run; run({words.split()!r}); run(['evaluate', {str(tmp_path / 'run')!r}])\n"
        "heavy = {'torch._dynamo', 'torch.distributed.tensor', 'torch._inductor', 'sympy', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE)


def test_places_that_cannot_be_are_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A home of nobody, a name that is too long, links in a circle, and a working folder that is gone."""
    (tmp_path / "loop").symlink_to("loop")
    for place, words in (
        ("~nobody-at-all/d", "there is no"),
        ("/" + "d" * 5000, "File name too long. Name another place."),
        (str(tmp_path / "loop"), "there is no"),
    ):
        assert refused(place) == 2
        assert words in capsys.readouterr().err
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert refused("d") == 2
    assert "The folder that this was started in is gone." in capsys.readouterr().err


def refused(data_path: str) -> object:
    with pytest.raises(SystemExit) as left:
        main(["prepare", "--data_path", data_path])
    return left.value.code


def test_a_word_without_a_key_may_begin_with_a_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RUNS", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for word in ("$RUNS/a", "${RUNS}/a", "~/a"):
        assert parse("evaluate", [word])[0][0] == f"{tmp_path}/a"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "$RUNS").touch()
    assert parse("evaluate", ["$RUNS"])[0][0] == "$RUNS", "what is called so"


def test_a_run_in_place_of_its_config_is_answered_with_the_config(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("depth: 2", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"which is a run's folder; its config is .*config\.yaml") as refusal:
        parsed(str(tmp_path))
    assert parsed(str(refusal.value).rpartition(" is ")[2].removesuffix("."))["depth"] == 2


def test_a_folder_of_data_in_place_of_a_config_is_answered_with_its_key(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"which is a folder; expected a YAML file\. For data: --data_path"
    ) as refusal:
        parsed(str(tmp_path))
    assert parsed(*str(refusal.value).partition("For data: ")[2].removesuffix(".").split())["data_path"] == str(
        tmp_path
    )
