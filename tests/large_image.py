"""Predict an image larger than memory on several processes, kill them on the way, resume, and compare with other tiles.

    python tests/large_image.py --side 20000
    python tests/large_image.py --side 20000 --against_half 3
    python tests/large_image.py --side 4000 --kills 20

Makes a TIFF by streaming, predicts it under a limit on memory that the system enforces (RLIMIT_DATA), kills all processes
once (at a share of the work) or more often (at random), starts the same command again, and predicts once more at another tile
size, undisturbed. The files must be equal to the byte: the network computes in float64, where no rounding turns a label.
--against_half looks at memory alone: the image and one of half its side, undisturbed and in turn, must take the same to 5 %. The
median of so many pairs counts, as how a heap settles is partly chance. Prints what it measured; leaves 1 where something is not as
claimed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tifffile
import torch

from unet_dist import UNet
from unet_dist.prediction.journal import Done, Journal
from unet_dist.storage.files import digest

_TILE = 512
_MIB = 2**20
_BASELINE = "import torch, tifffile, accelerate, unet_dist.commands.predict; print(open('/proc/self/status').read())"


def write_image(path: Path, side: int) -> None:
    """Write a side x side RGB BigTIFF tile by tile: waves of many lengths, and noise."""

    def tiles() -> Iterator[np.ndarray]:
        generator = np.random.default_rng(0)
        for row in range(0, side, _TILE):
            for col in range(0, side, _TILE):
                rows, cols = np.mgrid[row : row + _TILE, col : col + _TILE].astype(np.float32)
                waves = np.sin(rows / 31) + np.sin(cols / 47) + np.sin((rows + cols) / 211)
                noise = generator.integers(0, 40, (_TILE, _TILE, 3), dtype=np.uint8)
                yield noise + (waves[:, :, None] * (20, 30, 35) + 107).astype(np.uint8)

    tifffile.imwrite(
        path, tiles(), shape=(side, side, 3), dtype=np.uint8, tile=(_TILE, _TILE), photometric="rgb", bigtiff=True
    )


def write_model(path: Path, base_channels: int, depth: int, dtype: torch.dtype) -> None:
    """Write a network with fixed weights."""
    torch.manual_seed(0)
    UNet(3, 5, base_channels=base_channels, depth=depth).to(dtype).save_pretrained(path)


@dataclass
class Launch:
    """A prediction on several processes of this host.

    Attributes:
        peak_bytes: the most anonymous memory (RssAnon) seen of each process that computes.
    """

    command: list[str]
    processes: int
    limit_bytes: int | None
    peak_bytes: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(self.processes)]
        module = ["-m", "unet_dist", *self.command]
        words = [sys.executable, *(launcher if self.processes > 1 else []), *module]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.started_s = time.monotonic()
        self.process = subprocess.Popen(words, env=environment, preexec_fn=self._limit, start_new_session=True)

    def _limit(self) -> None:
        if self.limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (self.limit_bytes, self.limit_bytes))

    def is_running(self) -> bool:
        """Say whether it runs, and look how much memory it takes."""
        for pid in self._pids():
            with contextlib.suppress(OSError, StopIteration):
                status = Path(f"/proc/{pid}/status").read_text().splitlines()
                anonymous = next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) * 1024
                self.peak_bytes[pid] = max(self.peak_bytes.get(pid, 0), anonymous)
        return self.process.poll() is None

    def wait(self) -> float:
        """Wait for the end; returns the seconds since the start."""
        while self.is_running():
            time.sleep(0.05)
        if self.process.returncode != 0:
            raise SystemExit(f"the prediction ended with {self.process.returncode}")
        return time.monotonic() - self.started_s

    def kill(self) -> None:
        """Kill every process of it at once, as a power cut would."""
        for pid in self._pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def _pids(self) -> list[int]:
        """The launcher and its descendants."""
        parents = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        pids = [self.process.pid]
        for pid in pids:  # grows on the way
            pids += [child for child, parent in parents.items() if parent == pid]
        return pids


def baseline_bytes() -> dict[str, int]:
    """Memory of a process that has imported everything and predicted nothing: VmData, and RssAnon."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    text = subprocess.run(
        [sys.executable, "-c", _BASELINE], env=environment, capture_output=True, text=True, check=True
    ).stdout
    lines = [line.split() for line in text.splitlines()]
    return {
        words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words and words[0] in ("VmData:", "RssAnon:")
    }


def main() -> int:
    """Make, kill, resume, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=20_000, help="of the image, px")
    parser.add_argument("--base_channels", type=int, default=4)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--tile_size", default="572", help="px, or auto")
    parser.add_argument("--other_tile_size", type=int, default=444)
    parser.add_argument("--window_batch", type=int, default=1, help="float64 convolutions unfold a whole batch")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--memory_mib", type=int, default=1024, help="that a process may take beyond its imports")
    parser.add_argument("--kill_at", type=float, default=0.3, help="share of the batches after which all are killed")
    parser.add_argument("--kills", type=int, default=1, help="more than one come at random moments")
    parser.add_argument("--kill_within_s", type=float, default=15, help="of the start, where they come at random")
    parser.add_argument(
        "--against_half", type=int, default=0, metavar="PAIRS", help="compare the memory with half the side's"
    )
    parser.add_argument("--dtype", choices=("float64", "float32"), default="float64")
    parser.add_argument("--folder", type=Path, help="for the files; by default one that is deleted")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        return compare(options, folder)


def compare(options: argparse.Namespace, folder: Path) -> int:
    """Run all of it in a folder."""
    image, half = folder / "large.tif", folder / "half.tif"
    if not image.exists():
        write_image(image, options.side)
    write_model(folder / "model", options.base_channels, options.depth, getattr(torch, options.dtype))
    before = baseline_bytes()
    limit = before["VmData"] + options.memory_mib * _MIB
    print(
        f"image {options.side} px a side, {image.stat().st_size / _MIB:.0f} MiB; limit {limit / _MIB:.0f} MiB",
        flush=True,
    )

    def start(output: str, tile_size: object, image: Path = image) -> Launch:
        command = ["predict", str(folder / "model"), str(image), "--output", str(folder / output)]
        command += ["--tile_size", str(tile_size), "--overlay", "false", "--mixed_precision", "no"]
        command += ["--window_batch", str(options.window_batch)]
        return Launch(command, options.processes, limit)

    if options.against_half:
        write_image(half, options.side // 2)
        return against_half(
            lambda: start("half", options.tile_size, half),
            lambda: start("whole", options.tile_size),
            options.against_half,
        )
    journal = Journal(folder / "killed")
    if options.kills == 1:
        print(
            f"killed with {start_and_kill(start('killed', options.tile_size), journal, options.kill_at)} batches done",
            flush=True,
        )
    else:
        kill_at_random(lambda: start("killed", options.tile_size), journal, options.kills, options.kill_within_s)
    again = start("killed", options.tile_size)
    print(f"finished {again.wait():.1f} s after the last start", flush=True)
    other = start("other", options.other_tile_size)
    print(f"undisturbed at tile size {options.other_tile_size}: {other.wait():.1f} s", flush=True)
    peak = max(max(launch.peak_bytes.values()) for launch in (again, other)) - before["RssAnon"]
    print(f"anonymous memory of a process: at most {peak / _MIB:.0f} MiB above its imports", flush=True)
    files = [folder / name / "large.tif" for name in ("killed", "other")]
    is_equal = digest(files[0]) == digest(files[1])
    print(f"the files are {'equal' if is_equal else 'NOT equal'} ({files[0].stat().st_size} bytes)", flush=True)
    return 0 if is_equal and peak <= options.memory_mib * _MIB else 1


def against_half(start_half: Callable[[], Launch], start_whole: Callable[[], Launch], pairs: int) -> int:
    """Compare the memory of an image with that of half its side; returns 1 where the median growth is more than 5 %."""
    growths = []
    for _ in range(pairs):
        most, seconds = [], []
        for start in (start_half, start_whole):
            launch = start()
            seconds.append(launch.wait())
            most.append(max(launch.peak_bytes.values()) / _MIB)
        growths.append(most[1] / most[0] - 1)
        print(
            f"half the side {most[0]:.0f} MiB in {seconds[0]:.1f} s, whole {most[1]:.0f} in {seconds[1]:.1f}",
            flush=True,
        )
    median = statistics.median(growths)
    print(
        f"twice the side takes {median:+.1%} anonymous memory ({min(growths):+.1%} to {max(growths):+.1%})", flush=True
    )
    return 0 if median <= 0.05 else 1


def start_and_kill(launch: Launch, journal: Journal, share: float) -> int:
    """Kill a launch when a share of its batches is in the journal; returns how many are."""
    target = 1
    while launch.is_running():
        num_done = len(journal.done().batches) if journal.folder.exists() else 0
        total = (journal.settings() or {}).get("num_batches", 0)
        target = max(int(total * share), 1)
        if total and num_done >= target:
            launch.kill()
            return len(journal.done().batches)
        time.sleep(0.2)
    raise SystemExit(f"the prediction ended with {launch.process.returncode} before {target} batches were done")


def kill_at_random(start: Callable[[], Launch], journal: Journal, kills: int, within_s: float) -> None:
    """Start and kill at random moments; SystemExit where the prediction was quicker."""
    draw = random.Random(0)
    for number in range(kills):
        launch, until_s = start(), time.monotonic() + draw.uniform(0, within_s)
        while launch.is_running() and time.monotonic() < until_s:
            time.sleep(0.05)
        if launch.process.returncode is not None:
            raise SystemExit(f"the prediction ended with {launch.process.returncode} before kill {number + 1}")
        launch.kill()
        done = journal.done() if journal.folder.exists() else Done()
        print(f"kill {number + 1}: {len(done.batches)} batches done, {len(done.images)} images finished", flush=True)


if __name__ == "__main__":
    sys.exit(main())
