"""What we write and read again, as subjects: models, checkpoints, caches, journals, runs' folders, configs, names, tables."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from tests.data.pictures import png, random_pair, write_folder, write_names, write_parquet
from tests.data.sources.test_outlines import write_labelme, write_yolo
from tests.data.sources.test_polygons import write_coco
from tests.hostile.judging import Subject, Wrong
from tests.prediction.parts import Prediction, contents, write_images
from tests.prediction.parts import build as build_network
from tests.report.fabricated import fabricate
from tests.runs.test_checkpoint import build, saved, train
from unet_dist import UNet
from unet_dist.assembly.run import Run
from unet_dist.assembly.run_folder import read_run_config
from unet_dist.command_line.parsing import read_yaml
from unet_dist.config.sections import KEYS, Config
from unet_dist.data.decoded.build import prepare
from unet_dist.data.decoded.cache import Cache, CacheSettings
from unet_dist.data.decoded.decode import decode_pair
from unet_dist.data.decoded.labels import LabelRules
from unet_dist.data.decoded.statistics import summarise
from unet_dist.data.sources.names import read_id_names
from unet_dist.data.sources.registry import open_source
from unet_dist.export.card import read_evaluations, write_card
from unet_dist.models.published import read_processor
from unet_dist.models.registry import load_model
from unet_dist.prediction.jobs import keep_readable
from unet_dist.report.contents import read_run
from unet_dist.report.page import run_page
from unet_dist.runs.checkpoint import newest_whole, write_checkpoint
from unet_dist.runs.environment import record_evaluation
from unet_dist.runs.metrics_log import MetricsLog
from unet_dist.runs.trackers import tracking_id

_RULES = LabelRules(num_classes=None)


def _make_model(folder: Path) -> None:
    torch.manual_seed(0)
    UNet(3, 4, base_channels=2, depth=1, class_names=["a", "b", "c", "d"]).save_pretrained(folder)
    processor = {
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "size": {"height": 64, "width": 64},
        "do_resize": True,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))


def _use_model(folder: Path, known: object) -> None:
    read_processor(folder)
    model = load_model(folder)
    side = model.window_sizes.minimum
    if side <= 200:
        with torch.inference_mode():
            model(torch.zeros(1, model.in_channels, side, side))  # type: ignore[operator]
    write_card(model, name="m", trained=None, evaluations=[], license=None, repo_id=None, example=None)


def _make_checkpoints(folder: Path) -> dict[int, Any]:
    known = {}
    model, optimizer = build()
    for step in (1, 2):
        train(model, optimizer, step, step)
        known[step] = saved(model, optimizer, step).on_host()
        write_checkpoint(folder, known[step])
    return known


def _use_checkpoints(folder: Path, known: object) -> None:
    assert isinstance(known, dict)
    found = newest_whole(folder, lambda text: None)
    if found is None:
        return
    if found.step not in known:
        raise Wrong(f"a checkpoint of step {found.step}")
    for kind in ("model", "optimizer"):
        for name, tensor in getattr(known[found.step], kind).items():
            if not torch.equal(tensor, getattr(found, kind)[name]):
                raise Wrong(f"{kind}: {name} is another")


def _make_cache(folder: Path) -> dict[str, Any]:
    data = write_folder(folder.parent / "data of the cache", num_pairs=6)
    write_names(data, ["road", "sky", "car"])
    cache = prepare(open_source(data), CacheSettings(), seed=0, cache_path=folder.parent / "caches")
    shutil.copytree(cache.path, folder, dirs_exist_ok=True)
    return _said_by(Cache(folder, seed=0))


def _said_by(cache: Cache) -> dict[str, Any]:
    split = cache.split("all")
    return {
        "ids": cache.ids,
        "class_names": cache.class_names,
        "num_classes": cache.num_classes,
        "ignore_index": cache.ignore_index,
        "splits": cache.splits,
        "mean": cache.mean,
        "std": cache.std,
        "identity": cache.identity,
        "counts": split.class_counts.tolist(),
        "images": [np.array(split.image(index)).tobytes() for index in range(len(split))],
        "labels": [np.array(split.label(index)[:]).tobytes() for index in range(len(split))],
        "copies": cache.find_copies(),
    }


def _use_cache(folder: Path, known: object) -> None:
    assert isinstance(known, dict)
    cache = Cache(folder, seed=0)
    if (
        b'"sha256"' not in (folder / "index.json").read_bytes()
    ):  # of an older release: nothing tells its table and index
        return
    for key, value in _said_by(cache).items():
        if value != known[key]:
            raise Wrong(f"the cache says other {key}")
    summarise(cache)


_NETWORK = build_network(dtype=torch.float32)


def _make_prediction(folder: Path) -> dict[str, bytes]:
    """A prediction that was stopped; the reference is its undisturbed outputs."""
    sources = write_images(folder.parent / "images of the journal", [(70, 90), (33, 40)])
    Prediction(folder.parent / "undisturbed", sources, model=_NETWORK).launch()
    stopped = Prediction(folder, sources, model=_NETWORK)
    stopped.journal.begin(_SETTINGS)
    stopped.launch(2, batches=[2, 1])
    return contents(folder.parent / "undisturbed")


_SETTINGS = {"model": "abc", "tile_size": 60, "inputs": [["a", 1, 2]]}


def _use_prediction(folder: Path, known: object) -> None:
    assert isinstance(known, dict)
    sources = sorted((folder.parent / "sound" / "images of the journal").iterdir())
    prediction = Prediction(folder, sources, model=_NETWORK)
    prediction.journal.require_own()
    if prediction.journal.settings() is None:
        prediction.journal.begin(_SETTINGS)
    else:
        prediction.journal.require_same(_SETTINGS)
    complete = prediction.launch()
    got = {name: content for name, content in contents(folder).items() if not name.startswith(".unet")}
    if complete and got != known:
        raise Wrong(f"outputs differ: {[name for name in known if got.get(name) != known[name]]}")


def _make_run(folder: Path) -> None:
    fabricate(
        folder / "run",
        steps=40,
        images=2,
        pictures=1,
        picture_size=(20, 24),
        class_names=["a", "b", "c"],
        log_steps=10,
        eval_steps=20,
    )
    (folder / "run" / "splits.json").write_text(json.dumps({"train": ["a", "b"], "test": ["c"]}))
    tracking_id(folder / "run")


def _use_run(folder: Path, known: object) -> None:
    run = Run(folder / "run")
    _ = run.metrics, run.config
    for ask in (lambda: run.scores, lambda: run.splits, lambda: run.data, lambda: run.evaluations):
        ask()
    read_run_config(folder / "run")
    MetricsLog(folder / "run" / "metrics.jsonl").rewind(20)
    record_evaluation(folder / "run", "test", {"device": "cpu"}, 1.0)
    tracking_id(folder / "run")
    page = run_page(read_run(folder / "run"), split=None, max_pictures=2)
    if "<script>alert" in page:
        raise Wrong("the page holds somebody else's script")
    model = UNet(3, 3, base_channels=2, depth=1)
    write_card(
        model,
        name="m",
        trained=None,
        evaluations=read_evaluations(folder / "run"),
        license=None,
        repo_id=None,
        example=None,
    )


def _make_config(folder: Path) -> None:
    values = {"data_path": "synthetic", "num_classes": 35, "learning_rate": 0.001, "label_map": {"1": 0}, "value_range": "0,4095",
              "class_weights": [1.0, 2.0], "total_steps": 20, "loss": "dice+cross_entropy", "mixed_precision": "no"}  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(values))


def _use_config(folder: Path, known: object) -> None:
    Config.from_flat(read_yaml(str(folder / "config.yaml"), list(KEYS)))


def _make_names(folder: Path) -> None:
    for name, value in (
        ("id2label", {"0": "a", "1": "b"}),
        ("label2id", {"a": 0, "b": 1}),
        ("list", ["a", "b"]),
        ("objects", [{"id": 0, "name": "a"}]),
    ):
        (folder / f"{name}.json").write_text(json.dumps(value))
    (folder / "classes.txt").write_text("0: a\n1: b\n")


def _use_names(folder: Path, known: object) -> None:
    for path in sorted(folder.iterdir()):
        names = read_id_names(path)
        if not all(isinstance(key, int) and isinstance(value, str) for key, value in names.items()):
            raise Wrong(f"{path.name}: {names}")


def read_source(folder: Path) -> None:
    """Read a data set to its pixels, as prepare does; pairs that are refused are left out."""
    source = open_source(folder)
    source.signature(folder.parent / "memo")
    source.read_id_names()
    for split, size in source.splits.items():
        for index in range(min(size, 4)):
            decode_pair(source.read_pair(split, index), _RULES, 2**22)


def _make_coco(folder: Path) -> None:
    for split in ("train", "val"):
        write_coco(folder, split, 2)


def _make_yolo(folder: Path) -> None:
    write_yolo(folder, f"1 {1 / 8} {1 / 6} {3 / 8} {1 / 6} {3 / 8} {3 / 6} {1 / 8} {3 / 6}")


def _make_labelme(folder: Path) -> None:
    write_labelme(folder)


def _make_folder(folder: Path) -> None:
    write_folder(folder, {"train": 2, "val": 1, "test": 1})
    write_names(folder, ["a", "b", "c"])


def _make_table(folder: Path) -> None:
    pairs = [(png(image), png(label)) for image, label in map(random_pair, range(3))]
    write_parquet(folder / "data" / "train-00000-of-00001.parquet", pairs)
    write_names(folder, ["a", "b", "c"])
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n---\n# Data\n"
    )


def _use_source(folder: Path, known: object) -> None:
    read_source(folder)


def _use_words(folder: Path, known: object) -> None:
    """What `predict FOLDER` does before it computes."""
    from functools import partial

    from unet_dist.imaging.reader import open_image
    from unet_dist.prediction.jobs import find_sources

    keep_readable(
        find_sources([str(path) for path in sorted(folder.rglob("*")) if path.suffix == ".png"]),
        open_reader=partial(open_image, max_pixels=2**22),
        in_channels=3,
    )


def _source(name: str, make: Callable[[Path], None], weight: int = 1) -> Subject:
    return Subject(name, make, _use_source, weight)


SUBJECTS = [
    Subject("model", _make_model, _use_model, 3),
    Subject("checkpoint", _make_checkpoints, _use_checkpoints, 2),
    Subject("cache", _make_cache, _use_cache, 3),
    Subject("journal", _make_prediction, _use_prediction, 2),
    Subject("run", _make_run, _use_run, 2),
    Subject("config", _make_config, _use_config, 2),
    Subject("names", _make_names, _use_names, 2),
    Subject("words", _make_folder, _use_words, 1),
    _source("coco", _make_coco),
    _source("yolo", _make_yolo),
    _source("labelme", _make_labelme),
    _source("folder", _make_folder, 2),
]
TABLE = _source("table", _make_table)
"""Slow, as `datasets` makes a copy of each table that it reads."""
