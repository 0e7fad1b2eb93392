"""Procedural scenes drawn by processes: drawing is Python, so that the threads of one process draw no faster than one.

Owns those processes: when they begin, what is asked of them and how they end, with whoever asked as well. Must not know how a
scene looks.

    python -m unet_dist.scenes.drawing NUM_IMAGES HEIGHT WIDTH SEED

reads numbers of scenes, a line each, and writes the bytes of the picture and of the label map of each one.
"""

from __future__ import annotations

import contextlib
import queue
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unet_dist.machine.allocator import keep_freed_memory
from unet_dist.machine.cores import num_cores
from unet_dist.scenes.synthetic import SyntheticScenes

Scene = tuple[NDArray[np.uint8], NDArray[np.uint8]]

LEAST_PIXELS = 4_000_000
"""Of all scenes together: fewer are drawn before another process has started (0.3 s, as long as five scenes of 270x480 take)."""
_MOST = 16


class SceneProcesses:
    """Draws each scene once; safe from several threads, as many as there are processes.

    Args:
        num_images, height, width, seed: of the scenes.
        count: of processes; by default one a core, and none for few pixels: they are then drawn here.
    """

    def __init__(self, num_images: int, height: int, width: int, seed: int, *, count: int | None = None) -> None:
        self._scenes = SyntheticScenes(num_images, height, width, seed)
        if count is None:
            cores = min(num_cores(), _MOST)
            count = cores if cores > 1 and num_images * height * width >= LEAST_PIXELS else 0
        self._count = count
        self._idle: queue.Queue[subprocess.Popen[bytes]] = queue.Queue()
        self._left = num_images
        self._lock = threading.Lock()
        self._end: weakref.finalize[..., SceneProcesses] | None = None

    def render(self, index: int) -> Scene:
        """Draw a scene as SyntheticScenes.render does. The processes end once as many were drawn as there are."""
        if self._count == 0:
            return self._scenes.render(index)
        self.start()
        process = self._idle.get()
        try:
            scene = self._ask(process, index)
        finally:
            self._idle.put(process)
        with self._lock:
            self._left -= 1
            if self._left <= 0 and self._end is not None:
                self._count = 0
                self._end()
        return self._scenes.render(index) if scene is None else scene

    def start(self) -> None:
        """Start the processes, which the first scene does else: until one is asked for they get ready."""
        with self._lock:
            if self._end is None and self._count:
                self._start()

    def _start(self) -> None:
        scenes = self._scenes
        words = [str(number) for number in (scenes.num_images, scenes.height, scenes.width, scenes.seed)]
        command = [sys.executable, "-m", __name__, *words]
        # In a session of their own: an interrupt is for the one who asked, whose end closes the pipe.
        processes = [
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            for _ in range(self._count)
        ]
        for process in processes:
            self._idle.put(process)
        self._end = weakref.finalize(self, _end, processes)

    def _ask(self, process: subprocess.Popen[bytes], index: int) -> Scene | None:
        """A scene from a process; None where it has died, or could not start: what it does is done here as well."""
        height, width = self._scenes.height, self._scenes.width
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(f"{index}\n".encode())
            process.stdin.flush()
            data = process.stdout.read(4 * height * width)
        except OSError:
            return None
        if len(data) < 4 * height * width:
            return None
        pixels = np.frombuffer(data, dtype=np.uint8)
        return pixels[: 3 * height * width].reshape(height, width, 3), pixels[3 * height * width :].reshape(
            height, width
        )


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # what it was asked and did not read
                if pipe is not None:
                    pipe.close()


_begun: dict[tuple[int, int, int, int], SceneProcesses] = {}


def begin(num_images: int, height: int, width: int, seed: int) -> None:
    """Start the processes of scenes that this process will draw soon: the next scene_processes of the same are these."""
    scenes = SceneProcesses(num_images, height, width, seed)
    scenes.start()
    _begun[num_images, height, width, seed] = scenes


def scene_processes(num_images: int, height: int, width: int, seed: int) -> SceneProcesses:
    """Those that were begun, given out once, or new ones."""
    return _begun.pop((num_images, height, width, seed), None) or SceneProcesses(num_images, height, width, seed)


def serve(words: Sequence[str]) -> None:
    """Draw the scenes that are asked for, until nobody can ask any more."""
    keep_freed_memory()  # the textures are made of arrays of 4 MiB: 53,000 page faults else, 0.12 s of 0.6
    scenes = SyntheticScenes(*map(int, words))
    scenes.make_textures()
    for line in sys.stdin.buffer:
        for pixels in scenes.render(int(line)):
            sys.stdout.buffer.write(np.ascontiguousarray(pixels).data)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve(sys.argv[1:])
