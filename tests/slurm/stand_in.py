"""Stands in for `accelerate` where the batch scripts' own doing is tested: notes how it was called, then acts as STAND_IN says.

Run as a program in a job, on each node. It keeps the promises of a run: a stop file is answered by a saved step, a requeue
marker and exit code 0.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

PATIENCE_S = 60.0


def wait_for(path: Path) -> None:
    """Wait until a file is there; a job whose file never comes fails."""
    deadline = time.monotonic() + PATIENCE_S
    while not path.exists():
        if time.monotonic() > deadline:
            sys.exit(f"no {path} within {PATIENCE_S:g} s")
        time.sleep(0.05)


def leave(folder: Path, step: int) -> None:
    """Save and ask to come back."""
    (folder / "saved").write_text(str(step), encoding="utf-8")
    (folder / "requeue").write_text(json.dumps({"step": step}) + "\n", encoding="utf-8")
    (folder / "stop").unlink(missing_ok=True)


def main(words: list[str]) -> None:
    """Note the call and act."""
    command = words[words.index("-m") + 2]
    share = (
        sorted(path.name for path in Path(words[words.index("predict") + 2]).iterdir()) if command == "predict" else []
    )
    call = {
        "words": words,
        "share": share,
        "node": int(os.environ["SLURM_NODEID"]),
        "threads": os.environ["OMP_NUM_THREADS"],
        "restarts": int(os.environ.get("SLURM_RESTART_COUNT", "0")),
        "secret": os.environ.get("UNET_DIST_SECRET", ""),
        "locked_bytes": resource.getrlimit(resource.RLIMIT_MEMLOCK)[0],
    }
    with Path("calls.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(call) + "\n")

    key = "--output" if command == "predict" else "--output_path"
    if int(os.environ["SLURM_NODEID"]) != 0 or key not in words:
        return
    folder = Path(words[len(words) - words[::-1].index(key)])  # of a repeated key the last counts
    (folder / "started").touch()
    is_back = (folder / "saved").exists()
    behaviour = os.environ.get("STAND_IN", "finish")
    if behaviour == "fail":
        sys.exit(3)
    elif behaviour == "never gets on":
        leave(folder, 7)
    elif behaviour == "asked once" and not is_back:
        wait_for(folder / "stop")
        leave(folder, 7)
    elif behaviour == "clears first" and not is_back:
        wait_for(folder / "stop")  # came while the run was starting
        (folder / "stop").unlink()
        wait_for(folder / "stop")
        leave(folder, 7)


if __name__ == "__main__":
    main(sys.argv[1:])
