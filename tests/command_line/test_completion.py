"""Proves completion in a real bash: of commands, of keys and of the values of a key."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from unet_dist.cli import run
from unet_dist.command_line.completion import completion_script

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


def complete(*words: str) -> list[str]:
    """What bash offers for the last word."""
    quoted = " ".join(f"'{word}'" for word in words)
    code = (
        f"{completion_script('bash')}\n"
        "name=$(complete -p unet-dist | sed 's/.*-F \\([^ ]*\\) .*/\\1/')\n"
        f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}\n"
        'compopt() { :; }\n"$name" unet-dist\nprintf "%s\\n" "${COMPREPLY[@]}"'
    )
    found = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert found.stderr == ""
    return found.stdout.split()


@needs_bash
def test_bash_completes_commands_keys_and_values() -> None:
    assert {"train", "predict", "completion"} <= set(complete("unet-dist", ""))
    assert complete("unet-dist", "pred") == ["predict"]
    assert complete("unet-dist", "train", "--learn") == ["--learning_rate"]
    assert complete("unet-dist", "train", "--norm", "b") == ["batch"]
    assert complete("unet-dist", "train", "--debug", "t") == ["true"]
    assert complete("unet-dist", "completion", "z") == ["zsh"]


def test_scripts_of_other_shells(capsys: pytest.CaptureFixture[str]) -> None:
    for shell, sign in (("zsh", "#compdef unet-dist"), ("fish", "complete -c unet-dist")):
        run(["completion", shell])
        out = capsys.readouterr().out
        assert sign in out
        assert "learning_rate" in out
