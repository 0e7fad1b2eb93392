"""The documentation site, built by Sphinx: `python -m sphinx -W docs docs/_build`.

The reference of the command line is written from the commands themselves before each build.
"""

from __future__ import annotations

from pathlib import Path

from sphinx.application import Sphinx

from unet_dist import __version__
from unet_dist.command_line.command import find_commands
from unet_dist.config.rules import hints_of, placeholder

project = "unet_dist"
author = "The unet_dist authors"
copyright = "2026, the unet_dist authors"
release = __version__

myst_enable_extensions = ["deflist"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "pydata_sphinx_theme"
html_title = "unet_dist"
html_show_sourcelink = False
html_context = {"default_mode": "auto"}
html_theme_options = {"navigation_with_keys": False, "show_prev_next": False, "secondary_sidebar_items": ["page-toc"]}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_google_docstring = True


def write_command_line(app: Sphinx) -> None:
    """Write reference/command_line.md: each command, its sections and its keys."""
    lines = ["# Command line", "", "Written from the commands: the same words that `--help` prints.", ""]
    for name, command in find_commands().items():
        lines += [
            f"## {name}",
            "",
            f"`{command.usage_line}`",
            "",
            f"{command.about[0].upper()}{command.about[1:]}.",
            "",
        ]
        for section in command.sections:
            lines += [f"**{section.__doc__}**", ""]
            for key in hints_of(section):
                lines += [f"`--{key} {placeholder(command.hints[key])}`", f": {command.meaning(key)}", ""]
    Path(app.srcdir, "reference/command_line.md").write_text("\n".join(lines), encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Register what runs before a build."""
    app.connect("builder-inited", write_command_line)
