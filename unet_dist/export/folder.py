"""A network as a folder for the Hugging Face hub: weights, config, model card, example picture.

Owns the folder's files and their way to the hub. The folder is a model folder like a run's own `best/`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, HTTPError

from unet_dist.config.sections import Config
from unet_dist.errors import ExportError
from unet_dist.export.card import (
    CARD_FILE,
    EXAMPLE_FILE,
    EXAMPLE_INPUT_FILE,
    is_of_scenes,
    read_evaluations,
    write_card,
)
from unet_dist.imaging.reader import as_reader
from unet_dist.imaging.writer import write_picture
from unet_dist.models.contract import TrainableNetwork
from unet_dist.report.figures import draw_prediction
from unet_dist.scenes.synthetic import SyntheticScenes
from unet_dist.tiling.windows import Labels
from unet_dist.wording import first_line

# Not the seed of data_path synthetic (0): no scene here was trained on.
_UNSEEN_SEED = 572
_SCENE_SHAPE = (540, 960)
_SCENE_SHAPE_BLENDED = (270, 480)
"""Blended tiles overlap by half: four times the work per pixel, and more windows where the network was trained on small ones."""


@dataclass(frozen=True)
class Example:
    """An image to show what the network does.

    Attributes:
        image: (H, W, C) uint8.
        words: what it is, for the card.
    """

    image: np.ndarray
    words: str


def make_example(
    path: str | None, in_channels: int, *, trained: Config | None, is_local: bool = True
) -> Example | None:
    """Read the image that the user named, or draw a street scene for a network that was trained on them; else there is none.

    A picture of the training data is never taken by itself: whoever publishes it needs the right to. A street scene would show
    nothing of a network of other data.

    Args:
        trained: the run's config, where it is known.
        is_local: whether tiles are exact; a network without a halo gets a smaller scene.

    Raises:
        DataError: the image cannot be read.
    """
    if path is not None:
        with as_reader(path) as reader:
            height, width, _ = reader.shape
            return Example(np.array(reader.read(0, height, 0, width)), "An image")
    if in_channels != 3 or not is_of_scenes(trained):
        return None
    scene, _ = SyntheticScenes(1, *(_SCENE_SHAPE if is_local else _SCENE_SHAPE_BLENDED), seed=_UNSEEN_SEED).render(0)
    return Example(scene, "A street scene drawn by a procedure, no photograph")


def fill_folder(
    folder: Path,
    model: TrainableNetwork,
    *,
    name: str,
    run: Path | None,
    trained: Config | None,
    license: str | None,
    repo_id: str | None,
    example: Example | None,
    predict: Callable[[np.ndarray], Labels],
) -> None:
    """Write the files into an empty folder.

    Args:
        run: the run's folder, where evaluations are looked for.
        repo_id: on the hub, where the folder is to go.
        predict: (H, W, C) uint8 -> (H, W) uint8, as the network's images are predicted.

    Raises:
        DataError: the example has other channels than the network takes.
    """
    model.save_pretrained(folder)
    if example is not None:
        names = model.class_names or [f"class {index}" for index in range(model.num_classes)]
        labels = predict(example.image)
        write_picture(folder / EXAMPLE_INPUT_FILE, example.image)
        draw_prediction(folder / EXAMPLE_FILE, example.image, labels, names)
    card = write_card(
        model,
        name=name,
        trained=trained,
        evaluations=read_evaluations(run) if run is not None else [],
        license=license,
        repo_id=repo_id,
        example=example.words if example is not None else None,
    )
    (folder / CARD_FILE).write_text(card, encoding="utf-8")


def push_folder(folder: Path, repo_id: str, *, private: bool) -> str:
    """Send a folder to the hub in one commit, making the repository where there is none; returns its address.

    Raises:
        ExportError: the hub does not take it; says why.
    """
    api = HfApi()
    try:
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload with unet_dist")
    except (HTTPError, HFValidationError, OSError, ValueError) as error:
        reason = first_line(error)
        raise ExportError(
            f"push: the hub did not take {repo_id} ({type(error).__name__}: {reason}). The folder {folder} is complete: check "
            "the id, the network and the token (hf auth login), then start the same command again."
        ) from error
    return str(address)
