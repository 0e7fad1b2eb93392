"""`unet-dist demo`: a local page that labels the images you drop on it."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import torch

from unet_dist.assembly.inference import choose_tiles, reason_of
from unet_dist.assembly.opening import load_run
from unet_dist.assembly.sizes import resolve_tile_size
from unet_dist.command_line.command import Command
from unet_dist.config.options import DemoOptions
from unet_dist.config.quantities import parse_bytes
from unet_dist.demo.labelling import WINDOW_BATCH, Labeller
from unet_dist.demo.page import make_page, require_gradio, serve
from unet_dist.errors import ConfigError
from unet_dist.imaging.limits import limit_decoding
from unet_dist.models.answers import require_one_class
from unet_dist.models.contract import Network
from unet_dist.prediction.tiles import WHOLE
from unet_dist.processes.launcher import is_first
from unet_dist.terminal import Teller
from unet_dist.wording import one_line

COMMAND = Command(
    about="open a local page that labels the images you drop on it",
    usage="RUN [--port 7860] [--key value ...]",
    place=50,
    needs="a run's folder, a model folder or a hub id",
    options="config.options:DemoOptions",
)


def run(words: Sequence[str], options: DemoOptions) -> None:
    """Serve RUN until interrupted."""
    if len(words) != 1:
        raise ConfigError(f"demo: got {len(words)} words without a key ({' '.join(words)}), expected one RUN.")
    if not is_first(os.environ):  # one process serves, however many a launcher started
        return
    teller = Teller(speaks=True)
    with tempfile.TemporaryDirectory(prefix="unet-dist-demo-") as folder:
        gradio = require_gradio(Path(folder))
        model, trained, _ = load_run(
            words[0], torch.device("cuda" if torch.cuda.is_available() else "cpu"), options.trust
        )
        require_one_class(model, "demo")
        tile_size = resolve_tile_size(options.tile_size, model, trained)
        tiles = choose_tiles(model, window_batch=WINDOW_BATCH, say=teller.say)
        limit_decoding(options.decode_memory, min(options.decode_seconds, options.seconds_per_image))
        labeller = Labeller(tiles, tile_size=tile_size, folder=Path(folder), limit_s=options.seconds_per_image)
        names = model.class_names or [f"class {index}" for index in range(model.num_classes)]
        kind = {1: "grey", 3: "colour"}.get(model.in_channels, f"{model.in_channels}-channel")
        about = f"{_num_labels(model)} classes, {kind} images of any size."
        if tiles.name != WHOLE:
            about += f" Computed in windows of at most {tile_size} px."
        if reason := reason_of(tiles):
            about += f" {reason}"
        title = f"unet_dist: {one_line(Path(words[0]).resolve().name)}"
        page = make_page(gradio, labeller.label, names, title=title, about=about)
        limit = parse_bytes(options.max_upload)
        address = serve(gradio, page, host=options.host, port=options.port, max_upload_bytes=limit)
        teller.say(f"Open {address} (Ctrl-C ends it). Nothing leaves this machine.")
        _wait_for_a_signal()
        page.close(verbose=False)
        teller.say("Ended.")


def _num_labels(model: Network) -> int:
    """How many classes a label map can have: the ignored one is never predicted."""
    ignored = model.ignore_index
    return int(model.num_classes) - int(ignored is not None and 0 <= ignored < model.num_classes)


def _wait_for_a_signal() -> None:
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()
