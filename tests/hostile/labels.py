"""Files of labels as subjects: those of CVAT, VIA, Label Studio and QGIS, lists of splits; archives of numpy, and a config that
configure wrote.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import yaml

from tests.data.pictures import write_folder, write_names
from tests.data.sources.test_annotation_tools import (
    POINTS,
    RUNS,
    VIA_BOX,
    VIA_OUTLINE,
    write_cvat,
    write_label_studio,
    write_via,
)
from tests.data.sources.test_geo import features, write_geojson, write_geopackage, write_raster
from tests.hostile.judging import Subject, Wrong
from tests.hostile.stores import read_source
from unet_dist.command_line.parsing import read_yaml
from unet_dist.config.sections import KEYS, Config
from unet_dist.imaging.reader import open_image

_SHAPES = (
    f'<polygon label="wall" points="{POINTS}" z_order="1"/>'
    f'<mask label="car" rle="{RUNS}" left="1" top="1" width="3" height="2" z_order="0"/>'
    '<ellipse label="car" cx="4" cy="3" rx="2" ry="1"/><tag label="car"/>'
)


def _make_cvat(folder: Path) -> None:
    write_cvat(folder, _SHAPES, subset=' subset="Train"')


def _make_via(folder: Path) -> None:
    ellipse = {"name": "ellipse", "cx": 3, "cy": 3, "rx": 2, "ry": 1, "theta": 0.5}
    attributes = ({"class": "wall"}, {"class": {"car": True, "tree": False}}, {"class": "car"})
    write_via(folder, VIA_OUTLINE, VIA_BOX, ellipse, attributes=attributes)


def _make_studio(folder: Path) -> None:
    write_label_studio(folder, small=False)


def _make_geojson(folder: Path) -> None:
    write_raster(folder / "a.tif")
    write_geojson(folder / "plots.geojson", features())


def _make_geopackage(folder: Path) -> None:
    write_raster(folder / "a.tif")
    write_geopackage(folder / "plots.gpkg", features())


def _make_lists(folder: Path) -> None:
    write_folder(folder, num_pairs=5)
    write_names(folder, ["a", "b", "c"])
    names = [path.name for path in sorted((folder / "images").iterdir())]
    (folder / "train.txt").write_text("\n".join(names[:3]) + "\n")
    (folder / "val.txt").write_text("\n".join(f"images/{name}" for name in names[3:]) + "\n")


def _make_table_of_splits(folder: Path) -> None:
    write_folder(folder, num_pairs=4)
    names = [path.stem for path in sorted((folder / "images").iterdir())]
    (folder / "splits.json").write_text(json.dumps({"train": names[:3], "val": names[3:]}))


def _use(folder: Path, known: object) -> None:
    read_source(folder)


def _make_archive(folder: Path) -> None:
    np.savez_compressed(folder / "a.npz", np.arange(600, dtype=np.uint8).reshape(20, 30))
    np.savez(folder / "b.npz", np.zeros((20, 30, 3), np.uint8))


def _use_archive(folder: Path, known: object) -> None:
    for path in sorted(folder.iterdir()):
        with open_image(path, max_pixels=2**22) as reader:
            height, width, channels = reader.shape
            got = reader.read(0, min(height, 60), 0, min(width, 60))
            if got.shape != (min(height, 60), min(width, 60), channels):
                raise Wrong(f"{path.name}: {got.shape} of {reader.shape}")


def _make_chosen(folder: Path) -> None:
    """As configure writes it."""
    values = {
        "data_path": "synthetic",
        "model": "unet",
        "base_channels": 16,
        "depth": 4,
        "total_steps": 100,
        "input_size": 444,
        "batch_size": 8,
        "learning_rate": 0.002,
        "mixed_precision": "bf16",
        "tile_size": 572,
        "loss": "cross_entropy",
    }
    (folder / "chosen.yaml").write_text("# chosen by configure\n" + yaml.safe_dump(values))


def _use_chosen(folder: Path, known: object) -> None:
    Config.from_flat(read_yaml(str(folder / "chosen.yaml"), list(KEYS)))


SUBJECTS = [
    Subject("cvat", _make_cvat, _use, 2),
    Subject("via", _make_via, _use, 2),
    Subject("studio", _make_studio, _use, 2),
    Subject("geojson", _make_geojson, _use, 2),
    Subject("geopackage", _make_geopackage, _use, 3),
    Subject("lists", _make_lists, _use, 2),
    Subject("table of splits", _make_table_of_splits, _use, 1),
    Subject("archive", _make_archive, _use_archive, 2),
    Subject("chosen", _make_chosen, _use_chosen, 1),
]
