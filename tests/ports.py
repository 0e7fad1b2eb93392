"""Ports for tests that start servers and process groups."""

from __future__ import annotations

import itertools
import random
import socket

# Below the ports of SLURM jobs (from 20000) and those that systems give to whoever asks for any (from 32768 on Linux):
# between the choice here and its use, no other process can be given one by chance. Each test process starts elsewhere.
_RANGE = range(10240, 20000)
_START = random.SystemRandom().randrange(len(_RANGE))
_CANDIDATES = itertools.chain.from_iterable(itertools.repeat([*_RANGE[_START:], *_RANGE[:_START]]))


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at, none of which this process has given out lately."""
    return list(itertools.islice(filter(_is_free, _CANDIDATES), count))


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        try:
            listener.bind(("", port))
        except OSError:
            return False
    return True
