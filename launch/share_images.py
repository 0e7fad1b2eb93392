"""Link one task's share of many images into a folder: share_images.py FOLDER TASK NUM_TASKS INPUT...

For the prediction array: what counts as an image is as in `predict` itself. Links have no limit on their number, as words
have, and are the same after a requeue.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from unet_dist.errors import DataError, UnetDistError
from unet_dist.prediction.jobs import find_sources


def main(folder: Path, task: int, num_tasks: int, inputs: list[str]) -> None:
    """Link every NUM_TASKS-th image from the TASK-th on, and print how many; a mistake is a sentence and exit code 2."""
    try:
        num_images = link(folder, find_sources(inputs)[task::num_tasks])
    except UnetDistError as error:
        print(f"unet-dist: error: {error}", file=sys.stderr)
        sys.exit(2)
    print(num_images)


def link(folder: Path, images: list[Path]) -> int:
    """Make the folder anew with a link to each image.

    Raises:
        DataError: two images of one name.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for image in images:
        place = folder / image.name
        if place.is_symlink():
            raise DataError(
                f"{image} and {place.resolve()} have one name, expected one each. Predict them in two jobs."
            )
        place.symlink_to(image.resolve())
    return len(images)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
