"""Compare an exported ONNX file in onnxruntime with the network in torch, on every pixel of real images.

    python -m tests.measure.onnx_equality MODEL DATA_PATH [--split validation] [--images 20]

MODEL is a run, a model folder or a hub id; it is exported into a temporary folder. Images are spread over the split; each is
computed by windows of several shapes and numbers, as `unet-dist export` does it. Labels must be equal on every pixel but ties
(torch's two best logits closer than 1e-4), logits within 1e-3. Exits with 1 where they are not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch

from unet_dist.assembly.opening import load_run
from unet_dist.data.decoded.build import prepare
from unet_dist.data.decoded.settings import CacheSettings
from unet_dist.data.sources.registry import open_source
from unet_dist.errors import ExportError
from unet_dist.export.check import compare
from unet_dist.export.graph import require_onnx, write_onnx
from unet_dist.imaging.reader import as_reader
from unet_dist.models.onnx_model import open_session


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data_path")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--images", type=int, default=20)
    options = parser.parse_args()
    require_onnx()
    model = load_run(options.model, torch.device("cpu"))[0].float()
    settings = CacheSettings(None, model.ignore_index)
    samples = prepare(open_source(options.data_path), settings, seed=0, say=print).split(options.split)
    count = min(options.images, len(samples))
    chosen = [round(i * (len(samples) - 1) / max(1, count - 1)) for i in range(count)]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        write_onnx(file, model, {})
        found = compare(model, open_session(file), (as_reader(samples.image(index)) for index in chosen), lambda: None)
    seconds = time.perf_counter() - started
    print(f"{found.images} images, {found.pixels:,} pixels, {seconds:.0f} s")
    print(f"other labels: {found.differing}, of which ties: {found.ties}; logits within {found.difference:.2e}")
    try:
        found.require()
    except ExportError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
