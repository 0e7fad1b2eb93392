"""Proves that the pages about data hold: their commands run on the data that they describe."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests import circles
from tests.circles import draw_scene
from tests.commands.test_raster import write_scenes
from tests.data.pictures import write_folder
from tests.data.sources.test_geo import features, write_geopackage, write_raster
from tests.docs.commands import commands_of, run_small

PAGES = Path(__file__).resolve().parents[2] / "docs/howto"

pytestmark = pytest.mark.usefixtures("own_process")


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


def write_plots(root: Path) -> None:
    for seed in range(6):
        write_raster(root / f"raster{seed}.tif", seed)
    write_geopackage(root / "plots.gpkg", features())


def write_stacks(root: Path) -> None:
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number in range(10):
        image = np.random.default_rng(number).integers(0, 4096, (48, 64)).astype(np.uint16)
        name = f"cell{number // 2:02}_z{number % 2:03}.tif"
        tifffile.imwrite(root / "images" / name, image)
        tifffile.imwrite(root / "masks" / name, (image > 2000).astype(np.uint8))


def write_discs(root: Path) -> None:
    for number in range(6):
        image, planes = draw_scene(number)
        (root / "images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / "images" / f"s{number}.png")
        circles.write_folders(root / "masks", f"s{number}", planes)


@pytest.mark.parametrize(
    ("page", "write", "says"),
    [
        (
            "folders.md",
            write_suffixes,
            "DIR: read as --images_folder 'images' --masks_folder 'masks' --mask_names '*_mask'",
        ),
        ("coco.md", write_coco, "class ids: 0 background, 1 cell"),
        ("geo_polygons.md", write_plots, "class ids: 0 background, 1 roof, 2 water"),
        ("rasters.md", write_scenes, "7 channels of uint16"),
        ("microscopy.md", write_stacks, "1 channel of uint16"),
        ("overlapping_classes.md", write_discs, "2 classes"),
    ],
)
def test_commands_of_the_page_run(tmp_path, monkeypatch, capsys, page, write, says):
    commands = commands_of((PAGES / page).read_text(encoding="utf-8"))
    assert [words[0] for words in commands[:2]] == ["prepare", "train"]
    write(tmp_path / "DIR")
    monkeypatch.chdir(tmp_path)
    for words in commands:
        run_small(words, tmp_path / "cache")
    assert says in " ".join(capsys.readouterr().out.split())
