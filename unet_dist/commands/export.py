"""`unet-dist export`: a model for other runtimes, checked against the original."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from unet_dist.assembly.data_set import open_data
from unet_dist.assembly.inference import choose_tiles
from unet_dist.assembly.opening import load_run, require_data_trusted
from unet_dist.assembly.run_data import bound, require_same
from unet_dist.assembly.sizes import resolve_tile_size
from unet_dist.command_line.command import Command
from unet_dist.config.options import ExportOptions
from unet_dist.config.quantities import parse_shape
from unet_dist.config.sections import Config
from unet_dist.data.sources.splits import held_out_split
from unet_dist.errors import ConfigError, UnetDistError
from unet_dist.export.check import compare
from unet_dist.export.folder import fill_folder, make_example, push_folder
from unet_dist.export.graph import OPSET, Form, require_onnx, write_onnx
from unet_dist.imaging.reader import ArrayReader, ImageReader, as_reader
from unet_dist.models.answers import require_one_class
from unet_dist.models.contract import TrainableNetwork, as_module, pixels_of
from unet_dist.models.onnx_model import OnnxModel, open_session
from unet_dist.prediction.image import predict_image, predict_rasters
from unet_dist.prediction.tiles import EXACT
from unet_dist.processes.launcher import is_first
from unet_dist.scenes.synthetic import SyntheticScenes
from unet_dist.storage.files import replacing, require_writable, write_whole_folder
from unet_dist.terminal import Teller
from unet_dist.tiling.windows import Labels
from unet_dist.wording import counted, size

COMMAND = Command(
    about="export a model to ONNX, or to a folder for the Hugging Face hub",
    usage="RUN [--format huggingface|onnx] [--output PATH] [--key value ...]",
    place=40,
    needs="a run's folder, a model folder or a hub id",
    options="config.options:ExportOptions",
)

# Scenes that no run has seen (data_path synthetic has seed 0), where the run's own data are out of reach.
_CHECK_SEED, _CHECK_SHAPE = 573, (360, 480)


def run(words: Sequence[str], options: ExportOptions) -> None:
    """Export RUN."""
    if len(words) != 1:
        raise ConfigError(f"export: got {len(words)} words without a key ({' '.join(words)}), expected one RUN.")
    if not is_first(os.environ):  # one process does it, however many a launcher started
        return
    teller = Teller(speaks=True)
    model, trained, folder = load_run(words[0], torch.device("cpu"), options.trust)
    if isinstance(model, OnnxModel):
        raise ConfigError(
            f"export: got {words[0]}, which is an export already. Give the run or the model folder it came from."
        )
    output = _output(options, folder, words[0])
    require_writable(output.parent, "output")
    if options.format == "onnx":
        require_one_class(model, "export --format onnx")
        _export_onnx(model, output, trained, folder, options, teller)
    else:
        _export_folder(model, output, trained, folder, options, teller)


def _output(options: ExportOptions, folder: Path | None, named: str) -> Path:
    if options.output is None:
        if folder is None:
            raise ConfigError(f"output: {named} is not a run's folder to write into. Set --output.")
        return folder / ("model.onnx" if options.format == "onnx" else "huggingface")
    output = Path(options.output)
    if options.format == "onnx" and output.suffix != ".onnx":
        raise ConfigError(f"output: got {output}, expected a name that ends in .onnx. Change --output.")
    if options.format == "huggingface" and output.suffix == ".onnx":
        raise ConfigError(f"output: got {output}, expected a folder. Add --format onnx, or change --output.")
    if options.format == "huggingface" and output.exists():
        # The older folder goes: it must be one of ours.
        is_export = output.is_dir() and {"config.json", "README.md"} <= {path.name for path in output.iterdir()}
        if not is_export and not (output.is_dir() and not any(output.iterdir())):
            raise ConfigError(
                f"output: {output} holds something else, and an export replaces the whole folder. Change --output."
            )
    return output


def _export_onnx(
    model: TrainableNetwork,
    output: Path,
    trained: Config | None,
    folder: Path | None,
    options: ExportOptions,
    teller: Teller,
) -> None:
    require_onnx()
    as_module(model).float()
    about = {"licence": options.license} if options.license else {}
    form = Form(None if options.sides is None else parse_shape(options.sides), options.padded)
    with replacing(output) as beside:
        teller.say(f"Writing the network as a graph for {output}, which may take a minute.")
        write_onnx(beside, model, about, form)
        source, number, readers = _check_images(model, trained, folder, options, teller)
        teller.say(f"Comparing it with torch on {counted(number, 'image')} of {source}.")
        with teller.progress("image compared", number) as bar:

            def advance() -> None:
                bar.advance()
                bar.tell("", is_routine=True)

            found = compare(model, open_session(beside), readers, advance, form)
        found.require()
        num_bytes = beside.stat().st_size
    teller.say(f"Compared with torch on {source}: {found}")
    teller.say(
        f"Written: {output} (opset {OPSET}, {size(num_bytes)}; for {pixels_of(model).dtype} pixels; its metadata say the rest)"
    )


def _check_images(
    model: TrainableNetwork, trained: Config | None, folder: Path | None, options: ExportOptions, teller: Teller
) -> tuple[str, int, Iterator[ImageReader]]:
    """Images to compare on, and how many: of the run's test split (else validation), or street scenes where that cannot be had."""
    count = options.check_images
    if trained is not None:
        try:
            require_data_trusted(trained, options.trust)
            cache = open_data(bound(trained, folder), teller)
            require_same(folder, cache)
            samples = cache.split(held_out_split(cache.splits))
        except UnetDistError as error:
            teller.say(f"The run's data cannot be had, so street scenes stand in for them: {error}")
        else:
            number = min(count, len(samples))
            chosen = [round(i * (len(samples) - 1) / max(1, number - 1)) for i in range(number)]
            readers = (as_reader(samples.image(index)) for index in chosen)
            return f"the {samples.name} split of {cache.name}", number, readers
    scenes = SyntheticScenes(count, *_CHECK_SHAPE, seed=_CHECK_SEED)
    readers = (ArrayReader(_channels(scenes.render(i)[0], model.in_channels)) for i in range(count))
    return "procedural street scenes", count, readers


def _channels(image: np.ndarray, in_channels: int) -> np.ndarray:
    """Repeat or drop channels: what a network computes does not depend on what they show."""
    return np.ascontiguousarray(np.resize(image.transpose(2, 0, 1), (in_channels, *image.shape[:2])).transpose(1, 2, 0))


def _export_folder(
    model: TrainableNetwork,
    output: Path,
    trained: Config | None,
    run: Path | None,
    options: ExportOptions,
    teller: Teller,
) -> None:
    example = make_example(options.example, model.in_channels, trained=trained, is_local=model.locality is not None)
    name = options.push.split("/")[-1] if options.push else (run or output).resolve().name

    def predict(image: np.ndarray) -> Labels:
        teller.say("Predicting the example image.")
        tiles = choose_tiles(model, window_batch=1, say=teller.say)
        if tiles.name == EXACT:  # what the card tells the reader to call
            return predict_image(model, image)
        return predict_rasters(tiles, image, resolve_tile_size(None, model, trained))["labels"]

    def fill(beside: Path) -> None:
        fill_folder(
            beside,
            model,
            name=name,
            run=run,
            trained=trained,
            license=options.license,
            repo_id=options.push,
            example=example,
            predict=predict,
        )

    write_whole_folder(output, fill)
    num_bytes = sum(path.stat().st_size for path in output.iterdir())
    teller.say(f"Written: {output} ({size(num_bytes)}): unet_dist.load_model({str(output)!r})")
    if options.example is not None:
        teller.say(f"{options.example} is part of it, as example_input.png: make sure that you may pass it on.")
    elif example is None:
        teller.say("The card has no example picture: --example FILE adds one that you may pass on.")
    if options.license is None:
        teller.say("No --license was named, and the card says so.")
    if options.push:
        teller.say(f"On the hub: {push_folder(output, options.push, private=options.private)}")
