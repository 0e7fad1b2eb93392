"""`unet-dist completion`: the script by which a shell completes commands, keys and values."""

from __future__ import annotations

from collections.abc import Sequence

from unet_dist.command_line.command import Command
from unet_dist.command_line.completion import completion_script
from unet_dist.errors import ConfigError, suggest

COMMAND = Command(
    about='completion for a shell: eval "$(unet-dist completion bash)"; fish: unet-dist completion fish | source',
    usage="bash|zsh|fish",
    place=130,
    needs="the name of a shell: bash, zsh or fish",
    word_choices=("bash", "zsh", "fish"),
)


def run(words: Sequence[str]) -> None:
    """Print the script of a shell."""
    (shell,) = words[:1]
    if len(words) > 1 or shell not in COMMAND.word_choices:
        raise ConfigError(f"completion: got {' '.join(words)!r}. {suggest(shell, COMMAND.word_choices)}")
    print(completion_script(shell))
