"""Proves that the pages about data hold: their commands run on the data that they describe."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.pictures import write_folder
from tests.distributed.processes import quiet_environment

PAGES = Path(__file__).resolve().parents[2] / "docs/howto"
_SMALL = "--base_channels 2 --depth 1 --input_size 44 --batch_size 2 --total_steps 2 --eval_steps 2 --trackers []"


def write_suffixes(root: Path) -> None:
    for path in sorted((write_folder(root, num_pairs=6, height=48, width=64) / "masks").iterdir()):
        path.rename(path.with_name(f"{path.stem}_mask.png"))


def write_coco(root: Path) -> None:
    write_folder(root, num_pairs=6, height=48, width=64)
    names = sorted(path.name for path in (root / "images").iterdir())
    for mask in (root / "masks").iterdir():
        mask.unlink()
    (root / "masks").rmdir()
    outline = [[4, 4, 40, 4, 40, 30, 4, 30]]
    stored = {
        "images": [{"id": i, "file_name": name, "height": 48, "width": 64} for i, name in enumerate(names)],
        "annotations": [{"id": i, "image_id": i, "category_id": 5, "segmentation": outline} for i in range(len(names))],
        "categories": [{"id": 5, "name": "cell"}],
    }
    (root / "annotations.json").write_text(json.dumps(stored))


@pytest.mark.parametrize(
    ("page", "write", "says"),
    [
        (
            "folders.md",
            write_suffixes,
            "DIR: read as --images_folder 'images' --masks_folder 'masks' --mask_names '*_mask'",
        ),
        ("coco.md", write_coco, "class ids: 0 background, 1 cell"),
    ],
)
def test_commands_of_the_page_run(tmp_path, page, write, says):
    blocks = re.findall(r"```bash\n(.*?)```", (PAGES / page).read_text(encoding="utf-8"), re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines() if line.startswith("unet-dist ")]
    assert [shlex.split(command)[1] for command in commands] == ["prepare", "train"]
    write(tmp_path / "DIR")
    said = ""
    for command in commands:
        _, name, *words = shlex.split(command)
        more = shlex.split(f"--cache_path {tmp_path / 'cache'} {_SMALL * (name == 'train')}")
        done = subprocess.run(
            [sys.executable, "-m", "unet_dist", name, *words, *more],
            cwd=tmp_path,
            env=quiet_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        said += done.stdout + done.stderr
        assert done.returncode == 0, said
    assert says in " ".join(said.split())
