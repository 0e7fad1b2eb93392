"""The files that a user begins with and edits: a config with every key, accelerate's configs, SLURM's scripts.

Owns which files there are and what they hold. Writes nothing itself.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from unet_dist.config.meanings import meanings_of
from unet_dist.config.rules import MAIN, hints_of, marks
from unet_dist.config.sections import SECTIONS, Config

_TEMPLATES = Path(__file__).resolve().parents[1] / "templates"
CONFIGS = _TEMPLATES / "configs"
"""The configs of the repository, in a wheel too."""
_WIDTH = 100
KINDS = ("config", "accelerate", "slurm")


def starter_files(kind: str) -> dict[str, str]:
    """The files of a kind: their places below the folder they are written to, and what they hold."""
    if kind == "config":
        return {"config.yaml": commented_config()}
    accelerate = _texts(CONFIGS / "accelerate", "configs/accelerate")
    if kind == "accelerate":
        return accelerate
    return {**_texts(_TEMPLATES / "slurm", "launch/slurm"), **accelerate}


def _texts(folder: Path, place: str) -> dict[str, str]:
    return {f"{place}/{file.name}": file.read_text(encoding="utf-8") for file in folder.iterdir() if file.is_file()}


def commented_config() -> str:
    """A config of all defaults: the main keys stand there, the others behind a #, each below its meaning."""
    import yaml

    values = Config().flat()
    lines = ["# unet-dist train config.yaml", "# A key behind a # has the value that it has when it is left out."]
    for section in SECTIONS.values():
        lines += ["", f"# ---- {section.__doc__}"]
        meanings = meanings_of(section)
        for key, kind in hints_of(section).items():
            value = (
                yaml.safe_dump(values[key], default_flow_style=True, allow_unicode=True).removesuffix("...\n").strip()
            )
            sign = "" if MAIN in marks(kind) and values[key] is not None else "# "
            lines += ["", *textwrap.wrap(meanings[key], _WIDTH, initial_indent="## ", subsequent_indent="## ")]
            lines.append(f"{sign}{key}: {value}")
    return "\n".join(lines) + "\n"
