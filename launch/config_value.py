"""Print what `train` makes of some keys, a line each: config_value.py KEY[,KEY...] [CONFIG.yaml] [--key value ...].

For the shell scripts, which need a run's folder or its batch size and must not guess at YAML.
"""

from __future__ import annotations

import sys

from unet_dist.cli import parse
from unet_dist.errors import UnetDistError


def main(keys: list[str], words: list[str]) -> None:
    """Print the values; a mistake in the words is a sentence and exit code 2, as in train itself."""
    try:
        config = parse("train", words)[0]
    except UnetDistError as error:
        print(f"unet-dist: error: {error}", file=sys.stderr)
        sys.exit(2)
    for key in keys:
        print(config.flat()[key])


if __name__ == "__main__":
    main(sys.argv[1].split(","), sys.argv[2:])
