"""What a command says of itself, and finding all that do.

A file of commands/ is a command once it declares `COMMAND = Command(...)`. The declaration is read from the source, not
imported: behind it stands torch, which takes seconds, and the help wants none. So its arguments are literals. Nor is the config
imported before its keys are asked for: the list of commands has none.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unet_dist.errors import ConfigError, suggest

if TYPE_CHECKING:
    from unet_dist.config.sections import Config

_FOLDER = "unet_dist.commands"


@dataclass(frozen=True, kw_only=True)
class Command:
    """The declaration of a command.

    Attributes:
        about: what it does, in a line; without a capital and a full stop, as it stands in the list of commands.
        usage: the words behind its name.
        place: where it stands among the others in the list.
        needs: what its first word must be, for the refusal where there is none; None where none is needed.
        takes_config: it takes [CONFIG.yaml] and the keys of a config; run gets the Config first. Others get the words.
        default_config: the template (a file of configs/) that it takes where no CONFIG.yaml is named.
        options: "module:Class" of its own keys below unet_dist, a dataclass that imports nothing heavy; run gets one last.
        starts_processes: it runs on several processes and on a device of choice, and takes the keys for that.
        uses_all_gpus: without a launcher and --processes, it runs on all GPUs of the machine.
        chooses: its module's `settle(config, options, gpus)` may answer with another config before processes start, or None.
        word_choices: the words that it takes without a key, where they can be listed.
        name: the name of its file.
    """

    about: str
    usage: str
    place: int
    needs: str | None = None
    takes_config: bool = False
    default_config: str | None = None
    options: str | None = None
    starts_processes: bool = False
    uses_all_gpus: bool = False
    chooses: bool = False
    word_choices: tuple[str, ...] = ()
    name: str = field(default="", compare=False)

    @property
    def usage_line(self) -> str:
        """How it is called."""
        return f"unet-dist {self.name} {self.usage}".rstrip()

    @property
    def own_options(self) -> type | None:
        """The class of its own keys."""
        return None if self.options is None else _object(self.options)

    @property
    def sections(self) -> list[type]:
        """The classes whose fields are its keys."""
        from unet_dist.config.sections import SECTIONS
        from unet_dist.config.start_options import ConfigOptions, StartOptions

        config = [*SECTIONS.values(), ConfigOptions] if self.takes_config else []
        own = self.own_options
        start = [StartOptions] if self.starts_processes else []
        return [*config, *([] if own is None else [own]), *start]

    @property
    def hints(self) -> dict[str, Any]:
        """All its keys with their types and marks."""
        from unet_dist.config.rules import hints_of

        return {key: kind for section in self.sections for key, kind in hints_of(section).items()}

    def meaning(self, key: str) -> str:
        """The string under the field of a key."""
        from unet_dist.config.meanings import meanings_of
        from unet_dist.config.rules import hints_of

        return next(meanings_of(section)[key] for section in self.sections if key in hints_of(section))

    @property
    def main_keys(self) -> list[str]:
        """The keys that its help shows first: those marked so, or all where none is."""
        from unet_dist.config.rules import MAIN, marks

        hints = self.hints
        return [key for key, kind in hints.items() if MAIN in marks(kind)] or list(hints)

    def load_run(self) -> Callable[..., None]:
        """Import the command."""
        run: Callable[..., None] = self._module.run
        return run

    def load_settle(self) -> Callable[..., Config | None]:
        """Import what chooses its config."""
        settle: Callable[..., Config | None] = self._module.settle
        return settle

    @property
    def _module(self) -> Any:
        return importlib.import_module(f"{_FOLDER}.{self.name}")


def _object(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(f"unet_dist.{module}"), name)


@lru_cache(maxsize=1)
def find_commands() -> dict[str, Command]:
    """All commands by name, in the order of their places."""
    spec = importlib.util.find_spec(_FOLDER)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    files = [file for folder in spec.submodule_search_locations for file in Path(folder).glob("*.py")]
    found = [command for file in files if (command := _declared(file)) is not None]
    return {command.name: command for command in sorted(found, key=lambda command: command.place)}


def find_command(name: str) -> Command:
    """The command of a name.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    commands = find_commands()
    if name not in commands:
        raise ConfigError(f"Unknown command {name!r}. {suggest(name, commands)}")
    return commands[name]


def _declared(file: Path) -> Command | None:
    """The declaration in a file of commands/, None where there is none."""
    source = file.read_text(encoding="utf-8")
    _, start, rest = source.partition("\nCOMMAND = Command(")
    if not start:
        return None
    call = ast.parse(f"Command({rest[: rest.index(chr(10) + ')') + 2]}", mode="eval").body
    assert isinstance(call, ast.Call), file
    values = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    return Command(**values, name=file.stem)
