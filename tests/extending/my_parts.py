"""The network of package/ by a path below this repository: `unet-dist train --model tests.extending.my_parts:make`."""

from __future__ import annotations

from tests.extending.package.leaf_parts.nets import make

__all__ = ["make"]
