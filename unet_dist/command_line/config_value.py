"""Print what `train` makes of some keys, a line each.

    python -m unet_dist.command_line.config_value KEY[,KEY...] [CONFIG.yaml] [--key value ...]

For the shell scripts, which need a run's folder or its batch size and must not guess at YAML.
"""

from __future__ import annotations

import sys

from unet_dist.command_line.command import find_command
from unet_dist.command_line.parsing import parse
from unet_dist.errors import UnetDistError
from unet_dist.wording import hanging


def main(keys: list[str], words: list[str]) -> None:
    """Print the values; a mistake in the words is a sentence and exit code 2, as in train itself."""
    try:
        config = parse(find_command("train"), words).arguments[0]
    except UnetDistError as error:
        print(f"unet-dist: error: {hanging(str(error))}", file=sys.stderr)
        sys.exit(2)
    for key in keys:
        print(config.flat()[key])


if __name__ == "__main__":
    main(sys.argv[1].split(","), sys.argv[2:])
