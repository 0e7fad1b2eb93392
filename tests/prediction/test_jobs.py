"""Proves which images are found, how outputs are named, and that nothing is overwritten that should not be."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.prediction.parts import draw, write_images
from unet_dist.errors import DataError
from unet_dist.imaging.reader import open_image
from unet_dist.prediction.jobs import Job, describe, find_sources, keep_readable, make_jobs
from unet_dist.prediction.run import input_records
from unet_dist.storage.files import write_whole


def plan(sources: list[Path], output: Path, **changes: Any) -> list[Job]:
    options: dict[str, Any] = {"open_reader": open_image, "in_channels": 3, "rasters": ["labels"], "format": "auto"}
    return make_jobs(sources, output, **(options | {"overlay": True} | changes))


def save_png(path: Path, height: int = 4, width: int = 5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw(height, width)).save(path)
    return path


def test_files_folders_and_globs(tmp_path: Path) -> None:
    paths = [save_png(tmp_path / "in" / f"{name}.png") for name in ("b", "a", ".hidden")]
    (tmp_path / "in" / "notes.txt").touch()
    assert find_sources([str(tmp_path / "in")]) == [paths[1], paths[0]]
    assert find_sources([str(tmp_path / "i?" / "*.png"), str(paths[0])]) == [paths[1], paths[0]]
    for word in (str(tmp_path / "*.jpg"), str(tmp_path / "none.png"), str(tmp_path)):
        with pytest.raises(DataError, match="got no image"):
            find_sources([word])


def test_the_format_follows_the_image(tmp_path: Path) -> None:
    (tiff,) = write_images(tmp_path, [(4, 5)])
    png = save_png(tmp_path / "street.png")
    rasters = ["labels", "probabilities"]
    jobs = plan([tiff, png], tmp_path / "out", rasters=rasters)
    assert [job.outputs["labels"].name for job in jobs] == ["image0.tif", "street.png"]
    assert jobs[1].outputs["probabilities"].name == "street_probabilities.tif", "PNG has no planes"
    assert {
        path.suffix for job in plan([tiff, png], tmp_path / "out", format="zarr") for path in job.outputs.values()
    } == {".zarr"}
    first, second = describe(jobs)
    assert first == f"image0.tif -> {tmp_path}/out/image0.tif, image0_probabilities.tif, image0_overlay.png"
    assert second.endswith("street_overlay.png")


def test_a_large_image_is_tiff_and_has_no_overlay(tmp_path: Path) -> None:
    np.lib.format.open_memmap(tmp_path / "large.npy", "w+", np.uint8, (8193, 8192, 3))  # holes, no data
    (job,) = plan([tmp_path / "large.npy"], tmp_path)
    assert job.outputs["labels"].name == "large.tif"
    assert job.overlay is None
    with pytest.raises(DataError, match=r"got format png .* expected tiff, zarr or auto"):
        plan([tmp_path / "large.npy"], tmp_path, format="png")


def test_each_page_of_a_stack_has_outputs_of_its_own(tmp_path: Path) -> None:
    pages = np.stack([draw(4, 5), draw(4, 5)])
    tifffile.imwrite(tmp_path / "v.tif", pages, photometric="rgb")
    sources = find_sources([str(tmp_path / "v.tif")])
    assert sources == find_sources([str(tmp_path)]) == [tmp_path / "v.tif#1", tmp_path / "v.tif#2"]
    assert find_sources([str(tmp_path / "v.tif#2")]) == sources[1:]
    jobs = plan(sources, tmp_path / "out")
    assert [job.outputs["labels"].name for job in jobs] == ["v_p0001.tif", "v_p0002.tif"]
    assert [record[0] for record in input_records(sources)] == [str(source) for source in sources]


def test_grey_is_read_as_colour_where_the_network_takes_colour(tmp_path: Path) -> None:
    Image.fromarray(draw(4, 5)[..., 0]).save(tmp_path / "a.png")
    said: list[str] = []
    plan([tmp_path / "a.png"], tmp_path / "out", open_reader=partial(open_image, channels=3), say=said.append)
    assert said == ["1 grey image read as colour, grey repeated: the network takes colour"]


def test_what_would_be_overwritten_is_named(tmp_path: Path) -> None:
    png = save_png(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: the output would overwrite an input\. Choose another --output\."):
        plan([png], tmp_path)
    twin = save_png(tmp_path / "b" / "a.png")
    with pytest.raises(DataError, match=r"b/a\.png and .*a\.png would both become .*out/a\.png"):
        plan([png, twin], tmp_path / "out")
    overlaid = save_png(tmp_path / "a_overlay.png")
    with pytest.raises(DataError, match="would both become"):
        plan([png, overlaid], tmp_path / "out")


def test_images_that_the_network_cannot_read_are_sentences(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "aerial.tif", np.zeros((4, 5, 4), np.uint8), photometric="rgb", extrasamples=[0])
    with pytest.raises(DataError, match=r"aerial\.tif: got 4 channels, expected 3 as the network was trained on"):
        plan([tmp_path / "aerial.tif"], tmp_path / "out")
    tifffile.imwrite(tmp_path / "deep.tif", np.zeros((4, 5, 3), np.uint16), photometric="rgb")
    with pytest.raises(DataError, match="value_range"):
        plan([tmp_path / "deep.tif"], tmp_path / "out")
    ranged = partial(open_image, value_range=(0.0, 4095.0))
    assert plan([tmp_path / "deep.tif"], tmp_path / "out", open_reader=ranged)


def test_a_zarr_group_without_an_array_is_a_sentence(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    zarr.create_group(str(tmp_path / "empty.zarr"))
    sources = find_sources([str(tmp_path / "empty.zarr")])
    with pytest.raises(DataError, match="a Zarr group with no array"):
        plan(sources, tmp_path / "out")


def test_a_name_too_long_for_outputs_is_left_out_and_hides_no_other(tmp_path):
    """Written at the end, it would end the whole folder; 217 bytes leave room for _overlay.png and a temporary name."""
    for name in ("a" * 218, "é" * 109, "b" * 217, "good"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / f"{name}.png")
    sources = find_sources([str(tmp_path)])
    kept, left_out = keep_readable(sources, open_reader=open_image, in_channels=3)
    assert sorted(path.stem for path in kept) == ["b" * 217, "good"]
    assert all("its name has 218 bytes, expected 217 at most" in reason for reason in left_out.values())
    write_whole(tmp_path / f"{'b' * 217}_overlay.png", b"x")
