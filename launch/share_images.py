"""Link one task's share of many images into a folder: share_images.py FOLDER TASK NUM_TASKS INPUT...

For the prediction array: what counts as an image, and what two images of one name mean, is as in `predict` itself. Links
have no limit on their number, as words have, and are the same after a requeue.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from unet_dist.errors import UnetDistError
from unet_dist.prediction import find_jobs


def main(folder: Path, task: int, num_tasks: int, inputs: list[str]) -> None:
    """Link every NUM_TASKS-th image from the TASK-th on, and print how many; a mistake is a sentence and exit code 2."""
    try:
        images = [job.source for job in find_jobs(inputs, folder, overlay=False)]
    except UnetDistError as error:
        print(f"unet-dist: error: {error}", file=sys.stderr)
        sys.exit(2)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    share = images[task::num_tasks]
    for image in share:
        (folder / image.name).symlink_to(image.resolve())
    print(len(share))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
