"""Label Studio's JSON: polygons, ellipses and brush strokes drawn as masks.

Owns what a task says, in the full and in the small export, and the brush's packed run lengths. Class ids: 0 is background, the
labels follow by name. Regions are drawn in the order of the file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from unet_dist.data.sources.named_pictures import (
    Pictures,
    candidates,
    files_by_split,
    find_picture,
    name_in_address,
    pictures_below,
    refuse_missing,
)
from unet_dist.data.sources.polygons import BACKGROUND, Canvas, Drawn, Sample, is_background, picture_size
from unet_dist.errors import DataError, RefusedError
from unet_dist.storage.typed import read_json
from unet_dist.wording import counted

_UPLOAD = re.compile(r"[0-9a-f]{8}-(.+)")  # what an upload puts before the name of a file
_OPAQUE = 128
_OUTLINES = {"points", "vertices", "rle", "imageDataURL", "x"}
"""Of a value that lies somewhere in the picture; others say something of it, such as a choice."""
_Task = tuple[str, list[dict[str, Any]]]  # address of its image, regions


def find_label_studio(root: Path) -> dict[str, Path]:
    """Give the Label Studio file of each split below a folder, none where there is none. Raises: DataError: several of one."""
    return files_by_split((path for path in candidates(root, ".json") if is_label_studio(path)), "Label Studio")


def is_label_studio(path: Path) -> bool:
    """Say whether a file is Label Studio's JSON with regions."""
    if path.suffix != ".json" or not path.is_file():
        return False
    text = path.read_bytes()
    return text.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[" and b'"original_width"' in text


def read_label_studio(root: Path, files: dict[str, Path]) -> Drawn:
    """Read the samples. Raises: DataError: a file is damaged, or names images that are not there."""
    stored: dict[str, list[_Task]] = {}
    num_without = 0
    for split, path in files.items():
        tasks = _load(path)
        stored[split] = [(address, regions) for address, regions in tasks if regions is not None]
        num_without += len(tasks) - len(stored[split])
    regions = [region for tasks in stored.values() for _, found in tasks for region in found]
    used = {label for region in regions if (label := _label_of(region)) is not None}
    class_names = [BACKGROUND, *sorted(name for name in used if not is_background(name))]
    pictures = pictures_below(root)
    samples = {split: _samples(root, files[split], tasks, pictures, class_names) for split, tasks in stored.items()}
    note = f"{num_without} tasks have no annotation and are left out" if num_without else ""
    return Drawn(samples, class_names, list(files.values()), note)


def _load(path: Path) -> list[tuple[str, list[dict[str, Any]] | None]]:
    """Read the image and the regions of each task, None where nobody annotated it."""
    try:
        return [_read_task(path, task) for task in read_json(path, list[dict[str, Any]])]
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise DataError(
            f"{path}: cannot be read as Label Studio's ({type(error).__name__}: {error}). Export it again."
        ) from error


def _read_task(path: Path, task: dict[str, Any]) -> tuple[str, list[dict[str, Any]] | None]:
    if "data" not in task:  # the small export: all but lists of regions is data
        lists = [value for value in task.values() if _holds_regions(value)]
        regions = [{**one, "value": one} for value in lists for one in value]
        _require_labels(path, task, regions)
        return _address_in(path, task, task, regions), regions if lists else None
    kept = [one for one in task.get("annotations", task.get("completions", [])) if not one.get("was_cancelled")]
    if len(kept) > 1:
        raise DataError(
            f"{path}: the task {task.get('id')} has {len(kept)} annotations. Keep one of them: its pixels have one label each."
        )
    regions = [one for one in kept[0]["result"] if "value" in one] if kept else []
    _require_labels(path, task, regions)
    return _address_in(path, task, task["data"], regions), regions if kept else None


def _require_labels(path: Path, task: dict[str, Any], regions: list[dict[str, Any]]) -> None:
    """Raises DataError: a region has no label. A region may be several values of one id, of which one has the label."""

    def region_of(one: dict[str, Any]) -> str:  # the small export has no ids
        return str(one.get("id") or [one["value"].get(key) for key in sorted(_OUTLINES)])

    placed = {region_of(one) for one in regions if _OUTLINES & one["value"].keys()}
    labelled = {region_of(one) for one in regions if _labels_in(one)}
    if without := len(placed - labelled):
        raise DataError(
            f"{path}: the task {task.get('id')} has {counted(without, 'region')} without a label. Label or delete them in Label "
            "Studio, and export again."
        )


def _address_in(path: Path, task: dict[str, Any], data: dict[str, Any], regions: list[dict[str, Any]]) -> str:
    """Give the address of the image among the data of a task. Raises: DataError: regions lie in several, or there is none."""
    targets = {str(one["to_name"]) for one in regions if "to_name" in one and _OUTLINES & one["value"].keys()}
    pages = {one.get("item_index") or 0 for one in regions}
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    keys = [key for key in (*targets, "image", "img", "picture", "url") if key in texts]
    found = [texts[key] for key in keys] or [one for one in texts.values() if re.search(r"\.\w{3,4}($|\?)", one)]
    if len(targets) > 1 or pages - {0} or not found:
        raise DataError(
            f"{path}: the task {task.get('id')} has {'no picture' if not found else 'regions in several pictures'}. Expected one "
            "picture for each task: export a project of single pictures."
        )
    return found[0]


def _holds_regions(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "original_width" in value[0]


def _samples(
    root: Path, path: Path, tasks: Sequence[_Task], pictures: Pictures, class_names: list[str]
) -> list[Sample]:
    samples, missing = [], []
    for address, regions in tasks:
        name = name_in_address(address)
        short = PurePosixPath(name).name
        uploaded = _UPLOAD.fullmatch(short)
        picture = find_picture(name, path, pictures) or (
            find_picture(uploaded[1], path, pictures) if uploaded else None
        )
        if picture is None:
            missing.append(short)
            continue
        name = picture.relative_to(root).with_suffix("").as_posix()
        samples.append(
            Sample(name, picture, partial(_draw, picture, regions, class_names), f"of {picture.name} in {path.name}")
        )
    refuse_missing(path, root, missing)
    return sorted(samples, key=lambda sample: sample.name)


def _label_of(region: dict[str, Any]) -> str | None:
    """Give the label of a region, None where it says something else, such as a text.

    Raises:
        RefusedError: it has several labels.
    """
    labels = _labels_in(region)
    if len(labels) > 1:
        raise RefusedError(f"has a region of the labels {', '.join(map(str, labels))}", "Give each region one label.")
    return str(labels[0]) if labels else None


def _labels_in(region: dict[str, Any]) -> list[object]:
    found = (value for key, value in region["value"].items() if key.endswith("labels") and isinstance(value, list))
    return next(found, [])


def _draw(picture: Path, regions: list[dict[str, Any]], class_names: list[str], *, overlap: bool = False) -> np.ndarray:
    """Draw the regions in the order of the file: (H, W). Raises: RefusedError: one is no area."""
    sizes = {(int(one["original_height"]), int(one["original_width"])) for one in regions if "original_height" in one}
    height, width = sizes.pop() if len(sizes) == 1 else picture_size(picture)
    canvas = Canvas(height, width, len(class_names), overlap=overlap)
    for region in regions:
        label = _label_of(region)
        if label is not None:
            _draw_region(canvas, region, 0 if is_background(label) else class_names.index(label), (height, width))
    return canvas.ids()


def _draw_region(canvas: Canvas, region: dict[str, Any], value: int, size: tuple[int, int]) -> None:
    told, (height, width) = region["value"], size
    if region.get("image_rotation"):
        raise RefusedError("has a region on a turned image", "Turn the picture itself, or set the rotation back.")
    if "points" in told:  # in percent of the sides, as all of them
        points = np.array(told["points"], dtype=np.float64).reshape(-1, 2) * (width / 100, height / 100)
        canvas.polygon(np.round(points, 6), value)  # so that pixels written in percent come back as they were
    elif "rle" in told:
        canvas.pixels(decode_brush(told["rle"], height, width), value)
    elif "radiusX" in told:
        radii = told["radiusX"] * width / 100, told["radiusY"] * height / 100
        canvas.ellipse((told["x"] * width / 100, told["y"] * height / 100), radii, told.get("rotation", 0), value)
    else:
        raise RefusedError(
            f"has a region with {', '.join(sorted(told))} and no outline",
            "Polygons, ellipses and the brush are read: a box says nothing of the pixels. Remove it.",
        )


def decode_brush(packed: Sequence[int], height: int, width: int) -> np.ndarray:
    """Unpack the brush's run lengths: (H, W) bool, true where it is more opaque than not.

    Source: @thi.ng/rle-pack, which Label Studio writes RGBA with: 32 bits for the number of values, 5 for the bits of one, four
    times 4 for the bits of a run's length; then runs, of one value or of several.

    Raises:
        RefusedError: it is of another size, or ends too early.
    """
    bits = np.unpackbits(np.asarray(packed, dtype=np.uint8)).astype("S1").tobytes().decode()
    place = 0

    def take(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    try:
        num_values, value_bits = take(32), take(5) + 1
        length_bits = [take(4) + 1 for _ in range(4)]
        if num_values != 4 * height * width:
            raise RefusedError(
                f"has a brush stroke of {num_values} values for {height} x {width} px", "Export it again."
            )
        values = np.zeros(num_values, dtype=np.uint8)
        done = 0
        while done < num_values:
            is_run = take(1)
            stop = done + 1 + take(length_bits[take(2)])
            if is_run:
                values[done:stop] = take(value_bits)
            else:
                values[done:stop] = [take(value_bits) for _ in range(stop - done)]
            done = stop
    except ValueError as error:
        raise RefusedError("has a brush stroke that ends too early", "Export it again.") from error
    opaque: np.ndarray = values.reshape(height, width, 4)[..., 3] >= _OPAQUE
    return opaque
