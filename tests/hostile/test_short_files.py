"""A short file that stands for hours or for gigabytes is refused in a sentence, before either is spent."""

from __future__ import annotations

import json
import sqlite3
import struct
import threading
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unet_dist import UNet
from unet_dist.data.decoded.decode import decode_pair
from unet_dist.data.decoded.labels import LabelRules
from unet_dist.data.sources import polygons
from unet_dist.data.sources.coco import decode_runs
from unet_dist.data.sources.cvat import read_cvat
from unet_dist.data.sources.pairs import RawPair
from unet_dist.data.sources.polygons import Canvas
from unet_dist.data.sources.registry import open_source
from unet_dist.data.sources.table import read_table
from unet_dist.data.sources.vectors import read_vectors
from unet_dist.errors import CheckpointError, DataError, RefusedError
from unet_dist.imaging.limits import limit_decoding
from unet_dist.imaging.reader import open_image
from unet_dist.models import weights
from unet_dist.models.registry import load_model
from unet_dist.wording import one_line


@pytest.fixture
def limits() -> Iterator[Callable[[str | None, float], None]]:
    yield limit_decoding
    limit_decoding(None, 300.0)


@pytest.mark.parametrize(
    "text", [" " * 200_000, "\n" * 500_000, "a={\n" * 200_000, "a = {b}\n" * 50_000, "=" * 200_000]
)
def test_a_header_of_envi_takes_no_pattern_for_hours(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.hdr").write_text("ENVI\n" + text)
    (tmp_path / "a.raw").write_bytes(bytes(6))
    with pytest.raises(RefusedError, match="ENVI header without lines"):
        open_image(tmp_path / "a.hdr")


def test_a_run_length_of_coco_ends() -> None:
    with pytest.raises(ValueError, match="more than 60 bits"):
        decode_runs("P" * 3_000_000)


def test_a_mask_of_cvat_lies_in_its_image(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    mask = '<mask label="a" rle="40000000000" left="0" top="0" width="200000" height="200000"/>'
    image = f'<image name="a.png" width="30" height="20">{mask}</image>'
    (tmp_path / "a.xml").write_text(f"<annotations>{image}</annotations>")
    (sample,) = read_cvat(tmp_path, {"train": tmp_path / "a.xml"}).samples["train"]
    with pytest.raises(RefusedError, match="a box of 200000 x 200000 px, larger than the image"):
        sample.draw()


def _draw_all(canvas: Canvas) -> np.ndarray:
    rng = np.random.default_rng(0)
    height, width = canvas.shape
    for value in range(1, 6):
        canvas.polygon(rng.uniform(-10, 1.2 * width, (9, 2)), value)
        canvas.ellipse((width / 2, height / 3), (width / value, height / 4), 20.0 * value, value)
    return canvas.ids()


def test_an_object_of_a_large_image_is_drawn_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pixels, in little more memory than the ids; all at once took 17 to 55 bytes a pixel."""
    whole = _draw_all(Canvas(61, 83, 6))
    monkeypatch.setattr(polygons, "_BLOCK_PX", 97)
    assert np.array_equal(_draw_all(Canvas(61, 83, 6)), whole)
    monkeypatch.undo()
    side = 5000
    canvas = Canvas(side, side, 2)
    tracemalloc.start()
    canvas.polygon(np.array([(0, 0), (side, 0), (side, side), (0, side)], dtype=float), 1)
    canvas.ellipse((side / 2, side / 2), (side, side), 3.0, 1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert canvas.ids().all()
    assert peak < 6 * side * side


def test_an_archive_of_four_axes_counts_all_of_them(tmp_path: Path, limits: Callable[..., None]) -> None:
    limits("16MiB", 300.0)
    np.savez_compressed(tmp_path / "a.npz", np.zeros((1, 1, 1, 2**25), np.uint8))
    with pytest.raises(RefusedError, match=r"takes 0\.1 GiB"):
        open_image(tmp_path / "a.npz")


def test_a_jpeg_2000_has_the_size_of_its_code(tmp_path: Path) -> None:
    """Pillow reads the box before it, and the decoder of 16 bits takes memory for what the code says."""
    imagecodecs = pytest.importorskip("imagecodecs")
    pixels = np.arange(20 * 30 * 3, dtype=np.uint16).reshape(20, 30, 3) * 7
    content = bytearray(imagecodecs.jpeg2k_encode(pixels, codecformat="jp2", level=0))
    (tmp_path / "a.jp2").write_bytes(content)
    with open_image(tmp_path / "a.jp2") as reader:
        assert reader.dtype == np.uint16
    place = content.find(b"\xff\x4f\xff\x51")
    for at, form, value in ((place + 8, ">2I", (60_000, 60_000)), (place + 40, ">H", (16_000,))):
        damaged = content.copy()
        struct.pack_into(form, damaged, at, *value)
        (tmp_path / "a.jp2").write_bytes(damaged)
        with pytest.raises(RefusedError, match="two sizes or numbers of planes"):
            open_image(tmp_path / "a.jp2").read(0, 20, 0, 30)


def _write_view(path: Path, shape: str) -> None:
    with sqlite3.connect(path) as base:
        base.execute("CREATE TABLE gpkg_geometry_columns (table_name, column_name, srs_id)")
        base.execute("CREATE TABLE gpkg_spatial_ref_sys (srs_id, organization, organization_coordsys_id)")
        base.execute("INSERT INTO gpkg_geometry_columns VALUES ('plots', 'geom', 1)")
        endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)"
        base.execute(f"CREATE VIEW plots AS {endless} SELECT x AS fid, {shape} AS geom FROM n")
    base.close()


@pytest.mark.parametrize("shape", ["NULL", "zeroblob(10000)", "polygon"])
def test_a_view_without_end_is_left(tmp_path: Path, limits: Callable[..., None], shape: str) -> None:
    ring = b"GP\0\1" + bytes(4) + struct.pack("<BIII8d", 1, 3, 1, 4, 0, 0, 0, 1, 1, 1, 0, 0)
    limits("1MiB" if shape == "polygon" else None, 0.2)
    _write_view(tmp_path / "a.gpkg", f"x'{ring.hex()}'" if shape == "polygon" else shape)
    said = {"NULL": "takes longer than", "zeroblob(10000)": "no GeoPackage shape", "polygon": "limit of decode_memory"}
    with pytest.raises(DataError, match=said[shape]):
        read_vectors(tmp_path / "a.gpkg")


def test_a_parquet_is_counted_before_it_is_spread_out(tmp_path: Path, limits: Callable[..., None]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    words = pyarrow.array(["a.png", "x" * 2**20])
    for name, indices in (("rows", np.zeros(2**20, np.int8)), ("words", np.ones(200, np.int8))):
        column = pyarrow.DictionaryArray.from_arrays(pyarrow.array(indices), words)
        parquet.write_table(pyarrow.table({"image": column}), tmp_path / f"{name}.parquet", store_schema=False)
    limits("64MiB", 300.0)
    for name in ("rows", "words"):
        assert (tmp_path / f"{name}.parquet").stat().st_size < 2**19
        with pytest.raises(DataError, match="decode_memory is 64"):
            read_table(tmp_path / f"{name}.parquet")


def test_a_parquet_of_odd_columns_keeps_its_words(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    columns = {
        "image": ["a.png", None],
        "n": [1, 2],
        "b": [b"x", b"y"],
        "s": [{"bytes": b"", "path": "p"}] * 2,
        "l": [[1], []],
    }
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    rows = read_table(tmp_path / "a.parquet")
    assert [(row["image"], row["n"]) for row in rows] == [("a.png", 1), (None, 2)]
    assert {type(row[key]) for row in rows for key in "bsl"} == {bytes}


def _write_weights(folder: Path, shape: list[int]) -> None:
    """Weights of zeros that the disk need not hold."""
    count = int(np.prod(shape))
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * count]}}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + 4 * count)


@pytest.mark.parametrize("count", [2**31, 2**40])
def test_weights_larger_than_the_memory_are_not_read(tmp_path: Path, count: int) -> None:
    """Where they can be mapped, their shapes are compared first."""
    UNet(3, 2, base_channels=2, depth=1).save_pretrained(tmp_path)
    _write_weights(tmp_path, [count])
    with pytest.raises(CheckpointError, match=r"1 not of this model \(a\)|cannot be read"):
        load_model(tmp_path)


def test_a_network_larger_than_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    UNet(3, 2, base_channels=2, depth=1).save_pretrained(tmp_path)
    monkeypatch.setattr(weights, "free_bytes", lambda device, share: 100)
    with pytest.raises(CheckpointError, match="of memory are free"):
        load_model(tmp_path)


def test_a_mask_that_is_drawn_for_ever_is_left(tmp_path: Path, limits: Callable[..., None]) -> None:
    ended = threading.Event()

    def draw() -> np.ndarray:
        ended.wait(60)
        return np.zeros((20, 30), np.uint8)

    limits(None, 0.05)
    image = np.zeros((20, 30, 3), np.uint8)
    with pytest.raises(RefusedError, match="mask of a takes longer than"):
        decode_pair(RawPair("a", image, draw, "a", "of a"), LabelRules(num_classes=2), 10_000)
    ended.set()


def test_json_of_any_depth_is_a_sentence(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    marks = {
        "segments": '"task_attributes" "segmentation_bitmap"',
        "studio": '"original_width"',
        "via": '"shape_attributes"',
        "coco": '"images" "annotations" "categories"',
        "geo": '"FeatureCollection"',
    }
    for name, mark in marks.items():
        (tmp_path / f"{name}.json").write_text("[" + mark + "[" * 100_000)
        with pytest.raises(DataError):
            _ = open_source(tmp_path).splits
        (tmp_path / f"{name}.json").unlink()


def test_a_name_of_blanks_is_put_on_a_line() -> None:
    assert one_line("a" + " " * 300_000 + "b\n  c \u2028 d") == "a" + " " * 300_000 + "b c d"


def test_a_zip_of_many_members_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for number in range(3000):
            archive.writestr(f"\x1b[2J{number}.npy", b"")
    with pytest.raises(RefusedError, match="holds 3000 arrays"):
        open_image(tmp_path / "a.npz")


def test_frames_of_a_gif_are_not_counted(tmp_path: Path) -> None:
    head = b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0x80, 0, 0) + bytes(6)
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 4, 4, 0) + b"\x02\x02\x84\x51\x00"
    (tmp_path / "a.gif").write_bytes(head + frame * 1_000_000 + b"\x3b")
    with pytest.raises(RefusedError, match="holds several frames"):
        open_image(tmp_path / "a.gif")
