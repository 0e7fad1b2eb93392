"""One rank of a test's processes: runs commands one after the other, each in a process group of its own.

Started by processes.py as `python -m tests.distributed.worker JOBS`. Starting Python and torch takes seconds, a command of a
tiny run takes less: so a process runs several.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def run_jobs(path: Path) -> None:
    """Run the jobs of a file, each {port, words, after}; notes the exit code of each beside it.

    A job waits for the file it comes after, so that a test can look around before it.
    """
    from accelerate.state import AcceleratorState

    from unet_dist.cli import main
    from unet_dist.processes import stopping
    from unet_dist.storage.files import write_whole

    stopping.LOOK_S = 0.0  # these runs are over in a second

    codes = []
    for job in json.loads(path.read_text(encoding="utf-8")):
        while job["after"] is not None and not Path(job["after"]).exists():
            time.sleep(0.01)
        os.environ["MASTER_PORT"] = str(job["port"])
        try:
            main(job["words"])
        except SystemExit as leaving:
            codes.append(leaving.code)
        write_whole(path.with_suffix(f".{os.environ['RANK']}"), json.dumps(codes).encode())
        AcceleratorState._reset_state(reset_partial_state=True)


if __name__ == "__main__":
    run_jobs(Path(sys.argv[1]))
