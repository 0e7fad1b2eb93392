"""Run a command of unet-dist with a core of its own for each process, its helper threads included.

    OMP_NUM_THREADS=1 accelerate launch --multi_gpu --num_processes 2 --main_process_port 0 -m tests.measure.own_core bench CONFIG

Of two cores a single process uses both, as it reads and writes beside the computing; two processes then share what one of them had
to itself. With a core each, a comparison of one process with several is one of equal means.
"""

from __future__ import annotations

import os


def main() -> None:
    """Keep to the core of this process's rank on its host, then do as `unet-dist` does."""
    cores = sorted(os.sched_getaffinity(0))
    rank = int(os.environ["LOCAL_RANK"])
    assert rank < len(cores), f"process {rank} of this host, which has {len(cores)} core(s) for it"
    os.sched_setaffinity(0, {cores[rank]})  # before the imports, whose threads inherit it

    from unet_dist.cli import main as run

    run()


if __name__ == "__main__":
    main()
