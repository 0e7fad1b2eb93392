"""Torch's own launcher with our last word: `python -m unet_dist.processes.torchrun FOLDER`, then words of torch.distributed.run.

Owns the exit code of a launch and the sentence for a process that could not speak for itself. A process that fails prints why;
torch's log, table and traceback would follow and hide it. Starts and watches nothing itself.
"""

from __future__ import annotations

import gc
import logging
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn


def main(folder: Path, words: Sequence[str]) -> NoReturn:
    """Launch, and leave with the exit code of the process that failed first, 128 and its number for a signal.

    Args:
        folder: of this launch alone; it is removed at the end.
    """
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # as nohup leaves it; torch listens for it all the same
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    try:
        code = _launch(words)
    except KeyboardInterrupt:  # before torch listens for it
        print("unet-dist: interrupted", file=sys.stderr, flush=True)
        code = 128 + signal.SIGINT
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(code)


def _launch(words: Sequence[str]) -> int:
    """Run torch's launcher to its end; returns the exit code."""
    # Here and not above: loading takes seconds, and a user may interrupt it.
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    asked = parse_args(list(words))
    logging.disable(logging.ERROR)  # of torch's launcher alone: the processes have their own logs
    try:
        run(asked)
    except ChildFailedError as error:
        # Those that torch ended, because another had failed, say nothing about the cause.
        failures = list(error.failures.values())
        own = [failure for failure in failures if failure.exitcode != -signal.SIGTERM] or failures
        first = min(own, key=lambda failure: failure.timestamp)
        return _explain_end(first.exitcode, f"process {first.local_rank} (pid {first.pid})")
    except SignalException as error:
        codes = _exit_codes()
        worst = next((code for code in codes if code > 0), min(codes, default=-error.sigval))
        if worst == -error.sigval:
            # Before a training listens, or in a command that has nothing to save.
            _say(f"stopped by {error.sigval.name}; files written before are whole. Run the same command again.")
            return 128 + error.sigval
        return _explain_end(worst, "a process that did not end in time")
    return 0


def _explain_end(code: int, who: str) -> int:
    """The exit code for that of a process, as a shell has it; names the signal that ended it, as the process could not."""
    if code >= 0:  # it printed why
        return code
    cause = " Linux does so where memory ran out: see dmesg, and unet-dist plan for what fits." if code == -9 else ""
    _say(f"error: {who} was ended by {signal.Signals(-code).name}.{cause} Run the same command to resume.")
    return 128 - code


def _exit_codes() -> list[int]:
    """How the processes that this one started have ended. Torch knows, and shows it to nobody where a signal came."""
    started = [found for found in gc.get_objects() if type(found) is subprocess.Popen]
    return [process.returncode for process in started if process.returncode is not None]


def _say(sentence: str) -> None:
    print(f"unet-dist: {sentence}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
