"""Proves that the files of a prediction depend neither on the number of processes, nor on kills, nor on the tile size.

Ranks take their turns in one process here; test_processes.py has real ones. The labels are compared with predict_image,
which tests/tiling proves equal to the undivided pass.
"""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from tests.prediction.parts import Prediction, build, contents, draw, write_images
from unet_dist import predict_image
from unet_dist.errors import DataError, LaunchError
from unet_dist.imaging.reader import ArrayReader, open_image
from unet_dist.prediction import handover, run, writing
from unet_dist.prediction.journal import FOLDER, DoneList, Journal
from unet_dist.prediction.run import wait_for_others
from unet_dist.prediction.values import Recipe
from unet_dist.prediction.writing import finish_image

SHAPES = [(70, 150), (33, 40), (70, 150), (90, 64)]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_images(tmp_path_factory.mktemp("images"), SHAPES)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, sources: list[Path]) -> dict[str, bytes]:
    """The files of one rank that is never stopped."""
    output = tmp_path_factory.mktemp("undisturbed")
    assert Prediction(output, sources).launch()
    return contents(output)


def test_labels_are_the_undivided_pass(undisturbed: dict[str, bytes], sources: list[Path], tmp_path: Path) -> None:
    assert sorted(undisturbed) == [path.name for path in sources], "and no journal is left"
    for source in sources:
        path = tmp_path / source.name
        path.write_bytes(undisturbed[source.name])
        np.testing.assert_array_equal(tifffile.imread(path, key=0), predict_image(build(), source, 60))


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_any_number_of_ranks_gives_the_same_bytes(
    undisturbed: dict[str, bytes], sources: list[Path], tmp_path: Path, world_size: int
) -> None:
    assert Prediction(tmp_path, sources).launch(world_size)
    assert contents(tmp_path) == undisturbed


def test_another_tile_size_gives_the_same_bytes(
    undisturbed: dict[str, bytes], sources: list[Path], tmp_path: Path
) -> None:
    assert Prediction(tmp_path, sources, tile_size=108, window_batch=3).launch(2)
    assert contents(tmp_path) == undisturbed


def test_stopped_anywhere_goes_on_with_another_number_of_ranks(
    undisturbed: dict[str, bytes], sources: list[Path], tmp_path: Path
) -> None:
    computed: list[int] = []

    class Counting:
        """Counts the tiles that are computed."""

        def __init__(self) -> None:
            self.tiles = Prediction(tmp_path, sources).work.tiles

        def compute(self, pieces: Any) -> Any:
            computed.append(len(pieces))
            return self.tiles.compute(pieces)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.tiles, name)

    prediction = Prediction(tmp_path, sources, tiles=Counting())
    num_tiles = sum(map(len, prediction.work.plans))
    launches = 0
    for world_size, stops in [(1, [0]), (2, [1, 2]), (1, [1]), (3, [0, 1, None]), (2, [None, 0]), (1, [None])]:
        launches += 1
        if prediction.launch(world_size, batches=stops):
            break
    assert launches > 3
    assert contents(tmp_path) == undisturbed
    assert sum(computed) == num_tiles, "no tile is computed twice"


def test_a_list_cut_short_costs_only_what_it_lost(
    undisturbed: dict[str, bytes], sources: list[Path], tmp_path: Path
) -> None:
    prediction = Prediction(tmp_path, sources)
    assert not prediction.launch(2, batches=[3, 3])
    for path in prediction.journal.folder.glob("done-*.txt"):
        path.write_bytes(re.sub(rb"end ~\w+\n$", b"", path.read_bytes())[:-1])
    assert prediction.launch(1)
    assert contents(tmp_path) == undisturbed


def test_deleted_outputs_and_rasters_are_made_again(
    undisturbed: dict[str, bytes], sources: list[Path], tmp_path: Path
) -> None:
    prediction = Prediction(tmp_path, sources, window_batch=1)
    assert not prediction.launch(1, batches=[sum(map(len, prediction.work.plans)) - 2])
    done = prediction.journal.done()
    assert done.images
    prediction.jobs[min(done.images)].outputs["labels"].unlink()
    for path in prediction.journal.folder.glob("*.labels"):
        path.unlink()
    assert prediction.launch(1)
    assert contents(tmp_path) == undisturbed


@pytest.mark.parametrize("damage", ["a pixel", "zeros", "cut in the journal"])
def test_a_damaged_raster_is_computed_again(
    undisturbed: dict[str, bytes], sources: list[Path], tmp_path: Path, damage: str
) -> None:
    """An id that no class has, pixels that a crash of the machine lost, and a journal that says too much."""
    prediction = Prediction(tmp_path, sources, window_batch=1)
    assert not prediction.launch(1, batches=[sum(map(len, prediction.work.plans)) - 2])
    (raster,) = prediction.journal.folder.glob("*.labels")
    pixels = bytearray(raster.read_bytes())
    if damage == "a pixel":
        pixels[7] = 200
    else:
        pixels[:] = bytes(len(pixels))
    raster.write_bytes(pixels)
    if damage == "cut in the journal":  # as releases before the checksums wrote it: nothing is noticed
        done = prediction.journal.folder / "done-00000.txt"
        done.write_text(re.sub(r"( \d+=\w+)* ~\w+", "", done.read_text()))
    assert prediction.launch(1)
    assert (contents(tmp_path) == undisturbed) == (damage != "cut in the journal")


def test_images_of_one_rank_are_finished_on_the_way(sources: list[Path], tmp_path: Path) -> None:
    prediction = Prediction(tmp_path, sources, window_batch=1)
    assert not prediction.launch(1, batches=[sum(map(len, prediction.work.plans)) - 1])
    finished = prediction.journal.done().images
    assert len(finished) == len(sources) - 1
    assert len(list(prediction.journal.folder.glob("*.labels"))) == 1, "their rasters in the making are gone"


@pytest.mark.parametrize("limit_px", [1, 20_000])
def test_images_are_finished_beside_each_other_within_a_limit(
    undisturbed: dict[str, bytes], sources: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit_px: int
) -> None:
    now: list[int] = []
    most = 0

    def finish_counted(work: Any, image: int, *how: Any) -> None:
        nonlocal most
        height, width = work.jobs[image].shape
        now.append(height * width)
        most = max(most, sum(now) if len(now) > 1 else 0)
        finish_image(work, image, *how)
        now.remove(height * width)

    monkeypatch.setattr(writing, "finish_image", finish_counted)
    monkeypatch.setattr(writing, "DEFAULT_MAX_PIXELS", limit_px)
    assert Prediction(tmp_path, sources).launch(finishers=4)
    assert contents(tmp_path) == undisturbed
    assert most <= limit_px


def test_the_last_image_of_several_processes_is_compressed_by_all_cores(
    sources: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have ended their shares, and wait: an image of 400 megapixels would keep one core busy for a minute."""
    threads = []
    monkeypatch.setattr(run, "finish_image", lambda work, image, num_threads: threads.append(num_threads))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    Prediction(tmp_path, sources[:1]).launch(world_size=2)
    assert threads == [6]


@pytest.mark.parametrize("format", ["png", "tiff", "zarr"])
def test_every_format_holds_all_rasters(tmp_path: Path, format: str) -> None:
    if format == "zarr":
        pytest.importorskip("zarr")
    Image.fromarray(draw(60, 90)).save(tmp_path / "street.png")
    recipe = Recipe(probabilities="uint8", confidence="uint8")
    output = tmp_path / "out"
    prediction = Prediction(output, [tmp_path / "street.png"], recipe=recipe, format=format, overlay=True)
    assert prediction.launch(2)
    suffix = {"png": ".png", "tiff": ".tif", "zarr": ".zarr"}[format]
    planes = ".tif" if format == "png" else suffix
    names = [f"street{suffix}", f"street_confidence{suffix}", "street_overlay.png", f"street_probabilities{planes}"]
    assert sorted(path.name for path in output.iterdir()) == sorted(names)
    labels = predict_image(build(), tmp_path / "street.png", 60)
    if format == "png":
        np.testing.assert_array_equal(np.asarray(Image.open(output / "street.png")), labels)
        shares = tifffile.imread(output / "street_probabilities.tif", key=0)
        assert shares.shape == (5, 60, 90)
        np.testing.assert_array_equal(np.asarray(Image.open(output / "street_confidence.png")), shares.max(axis=0))
        assert (np.take_along_axis(shares, labels[None].astype(np.int64), 0)[0] == shares.max(axis=0)).all()
    else:
        with open_image(output / f"street{suffix}", value_range=None) as reader:
            assert reader.shape[:2] == (60, 90)


def test_a_damaged_image_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    (source,) = write_images(tmp_path, [(70, 150)])
    whole = source.read_bytes()
    prediction = Prediction(tmp_path / "out", [source])
    source.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"image0\.tif is a damaged or truncated TIFF"):
        prediction.launch()
    assert not list((tmp_path / "out").glob("*.tif"))


@pytest.fixture
def _small_files() -> Iterator[None]:
    """No file may grow beyond 5 kB: the system refuses it as it refuses a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_a_sentence_and_leaves_nothing(
    tmp_path: Path, sources: list[Path], request: pytest.FixtureRequest
) -> None:
    prediction = Prediction(tmp_path, sources)
    request.getfixturevalue("_small_files")
    with pytest.raises(DataError, match=r"could not be written: File too large\. Make room or choose another output"):
        prediction.launch()
    assert not list(tmp_path.glob("*.tif"))


def test_a_failed_writer_does_not_wait_for_the_reader(sources: list[Path], tmp_path: Path) -> None:
    prediction = Prediction(tmp_path, sources)
    prediction.journal.begin({})
    prediction.journal.scratch_path(0, "labels").write_bytes(b"of another size")
    with pytest.raises(DataError, match="It belongs to another prediction"):
        prediction.launch()


def test_a_failed_network_ends_the_threads(sources: list[Path], tmp_path: Path) -> None:
    model = build()
    model.classifier.register_forward_hook(_fail)
    with pytest.raises(RuntimeError, match="no such kernel"):
        Prediction(tmp_path, sources, model=model).launch()


def _fail(*_: object) -> None:
    raise RuntimeError("no such kernel")


def test_no_memory_to_read_with_is_a_sentence(sources: list[Path], tmp_path: Path) -> None:
    def open_nothing(path: Path) -> Any:
        raise MemoryError

    prediction = Prediction(tmp_path, sources, open_reader=open_nothing)
    with pytest.raises(DataError, match=r"Memory ran out while pixels were read or written: .*lower --window_batch"):
        prediction.launch()


def test_few_files_are_open_at_once(tmp_path: Path) -> None:
    sources = write_images(tmp_path / "in", [(20, 20 + 4 * number) for number in range(12)])
    most = 0

    def open_counted(path: Path) -> Any:
        nonlocal most
        most = max(most, len(os.listdir("/proc/self/fd")))
        return open_image(path)

    before = len(os.listdir("/proc/self/fd"))
    assert Prediction(tmp_path / "out", sources, open_reader=open_counted).launch()
    assert most <= before + 12, "readers and rasters are closed on the way"
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("most_bytes", [0, 2**20])
def test_an_image_is_decoded_once_for_windows_and_overlay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_bytes: int
) -> None:
    """As long as those that wait for their overlay are few; however it is read, all is closed and the bytes are the same."""
    shapes = [(70, 150), (33, 40), (70, 150)]
    sources = [tmp_path / f"image{number}.png" for number in range(len(shapes))]
    for path, shape in zip(sources, shapes, strict=True):
        Image.fromarray(draw(*shape)).save(path)
    readers: list[_Watched] = []

    def open_watched(path: Path) -> Any:
        readers.append(_Watched(open_image(path)))
        return readers[-1]

    monkeypatch.setattr(handover, "_MOST_BYTES", most_bytes)
    assert Prediction(tmp_path / "out", sources, overlay=True, open_reader=open_watched).launch()
    assert len(readers) == (len(sources) if most_bytes else 2 * len(sources))
    assert all(reader.closings == 1 for reader in readers)
    if most_bytes == 0:
        monkeypatch.undo()
        assert Prediction(tmp_path / "kept", sources, overlay=True).launch()
        assert contents(tmp_path / "out") == contents(tmp_path / "kept")


class _Watched(ArrayReader):
    """A reader that counts how often it was closed."""

    def __init__(self, reader: Any) -> None:
        super().__init__(reader.read(0, reader.shape[0], 0, reader.shape[1]))
        self.closings = 0

    def read(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray:
        assert not self.closings
        return super().read(row_start, row_stop, col_start, col_stop)

    def close(self) -> None:
        self.closings += 1


def test_what_waits_for_its_overlay_is_closed_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, late = _Watched(ArrayReader(draw(4, 5))), _Watched(ArrayReader(draw(4, 5)))
    monkeypatch.setattr(handover, "_MOST_READERS", 1)
    with handover.Handover() as waiting:
        waiting.put(0, reader)
        waiting.put(1, late)
        assert (reader.closings, late.closings) == (0, 1)
        assert waiting.take(1) is None
    assert (reader.closings, late.closings) == (1, 1)


def test_waiting_ends_when_nothing_comes(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.begin({})
    DoneList(journal, 0).append(batches=[1], is_end=True)
    with pytest.raises(LaunchError, match="1 of 2 processes have finished nothing for 0 s"):
        wait_for_others(journal, 2, 0.02, is_stopped=lambda: False, pause_s=0.01)
    wait_for_others(journal, 2, 60.0, is_stopped=lambda: True)
    DoneList(journal, 1).append(is_end=True)
    wait_for_others(journal, 2, 60.0, is_stopped=lambda: False)


def test_blended_does_not_depend_on_the_number_of_ranks(sources: list[Path], tmp_path: Path) -> None:
    model = build(dtype=torch.float32, padding="same", norm="group")
    for name, world_size in [("one", 1), ("three", 3)]:
        assert Prediction(tmp_path / name, sources, model=model, blend=True, tile_size=32).launch(world_size)
    assert contents(tmp_path / "one") == contents(tmp_path / "three")
    assert FOLDER not in os.listdir(tmp_path / "one")
