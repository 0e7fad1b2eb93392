"""Proves that windows of Zarr arrays and groups equal the whole, whatever the axes, and that anything but an image is named."""

import json
import os

import numpy as np
import pytest

from tests.imaging.windows import assert_windows_equal, whole
from unet_dist.errors import DataError
from unet_dist.imaging import limits
from unet_dist.imaging.reader import open_image

zarr = pytest.importorskip("zarr", minversion="3", reason="zarr 3 needs Python 3.11")


def store(path, values, *, names=None, chunks=None, **options):
    """Write one array."""
    array = zarr.create_array(
        str(path),
        shape=values.shape,
        dtype=values.dtype,
        chunks=chunks or values.shape,
        dimension_names=names,
        **options,
    )
    array[...] = values
    return array


@pytest.mark.parametrize(
    ("axes", "names", "chunks"),
    [
        ("yxc", None, (16, 16, 3)),
        ("yxc", None, (7, 300, 1)),
        ("yxc", ("y", "x", "c"), (300, 16, 2)),
        ("cyx", ("c", "y", "x"), (1, 32, 32)),
        ("cyx", ("channel", "Y", "X"), (3, 32, 32)),
        ("xcy", ("x", "c", "y"), (64, 3, 64)),
    ],
)
def test_windows_equal_the_whole_for_any_axes_and_chunks(tmp_path, axes, names, chunks):
    pixels = np.random.default_rng(0).integers(0, 256, (290, 310, 3), dtype=np.uint8)
    store(tmp_path / "a.zarr", pixels.transpose(["yxc".index(axis) for axis in axes]), names=names, chunks=chunks)
    with open_image(tmp_path / "a.zarr") as reader:
        assert_windows_equal(reader, pixels, num_windows=10)


@pytest.mark.parametrize("names", [("t", "y", "x", "c"), ("y", "z", "x", "c")])
def test_other_axes_may_have_length_1(tmp_path, names):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    store(tmp_path / "a.zarr", np.expand_dims(pixels, [i for i, name in enumerate(names) if name in "tz"]), names=names)
    with open_image(tmp_path / "a.zarr") as reader:
        assert_windows_equal(reader, pixels, num_windows=5)


def test_version_2_shards_and_grey(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (290, 310), dtype=np.uint8)
    store(tmp_path / "v2.zarr", grey, chunks=(64, 64), zarr_format=2)
    store(tmp_path / "shards.zarr", grey, chunks=(32, 32), shards=(128, 128))
    for name in ("v2.zarr", "shards.zarr"):
        with open_image(tmp_path / name) as reader:
            assert_windows_equal(reader, grey[:, :, None], num_windows=10)


def test_xarrays_names_of_version_2_are_read(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 50), dtype=np.uint8)
    array = store(tmp_path / "a.zarr", pixels, zarr_format=2)
    array.attrs["_ARRAY_DIMENSIONS"] = ["band", "y", "x"]
    with open_image(tmp_path / "a.zarr") as reader:
        np.testing.assert_array_equal(whole(reader), pixels.transpose(1, 2, 0))


def test_only_the_chunks_of_a_window_are_read(tmp_path):
    """Chunks that are damaged outside the window are not noticed; inside it they are a sentence."""
    pixels = np.random.default_rng(0).integers(0, 256, (1024, 1024), dtype=np.uint8)
    store(tmp_path / "a.zarr", pixels, chunks=(256, 256))
    (tmp_path / "a.zarr" / "c" / "2" / "3").write_bytes(b"damaged")
    with open_image(tmp_path / "a.zarr") as reader:
        np.testing.assert_array_equal(reader.read(0, 512, 0, 1024)[:, :, 0], pixels[:512])
        np.testing.assert_array_equal(reader.read(512, 1024, 0, 768)[:, :, 0], pixels[512:, :768])
        with pytest.raises(DataError, match=r"chunk at row 512, column 768 cannot be decoded.*damaged"):
            reader.read(600, 601, 800, 801)


def ome_zarr(path, levels, *, version="0.5", axes="yxc", unit="micrometer", scale=0.5):
    """Write a pyramid as OME-NGFF has it."""
    group = zarr.create_group(str(path), zarr_format=3 if version == "0.5" else 2)
    for number, level in enumerate(levels):
        array = group.create_array(str(number), shape=level.shape, dtype=level.dtype, chunks=level.shape)
        array[...] = level
    space = {"y": unit, "x": unit}
    multiscales = [
        {
            "axes": [
                {"name": name, "type": "space", **({"unit": space[name]} if name in space else {})} for name in axes
            ],
            "datasets": [
                {
                    "path": str(number),
                    "coordinateTransformations": [
                        {"type": "scale", "scale": [scale * 2**number if name in "yx" else 1 for name in axes]}
                    ],
                }
                for number in range(len(levels))
            ],
        }
    ]
    group.attrs.update(
        {"ome": {"version": "0.5", "multiscales": multiscales}} if version == "0.5" else {"multiscales": multiscales}
    )


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["yxc", "cyx"])
def test_levels_of_ome_zarr_by_number_and_by_size(tmp_path, version, axes):
    pixels = np.random.default_rng(0).integers(0, 256, (200, 302, 3), dtype=np.uint8)
    levels = [pixels, pixels[::2, ::2], pixels[::4, ::4]]
    order = ["yxc".index(axis) for axis in axes]
    ome_zarr(tmp_path / "o.zarr", [level.transpose(order) for level in levels], version=version, axes=axes)
    for number, level in enumerate(levels):
        for choice in ({"level": number}, {"mpp": 0.5 * 2**number}):
            with open_image(tmp_path / "o.zarr", **choice) as reader:
                assert_windows_equal(reader, level, num_windows=3)
                assert reader.placement.microns_per_px == pytest.approx(0.5 * 302 / level.shape[1])
    with pytest.raises(DataError, match=r"no level 3. Choose one of: 0 \(200 x 302 px, 0.5 µm/px\)"):
        open_image(tmp_path / "o.zarr", level=3)


def put(group, name, values):
    """Write an array into a group, as zarr 3.0 can, too."""
    group.create_array(name, shape=values.shape, dtype=values.dtype)[...] = values


def test_a_group_of_numbered_arrays_is_a_pyramid_and_of_one_array_is_that(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    group = zarr.create_group(str(tmp_path / "g.zarr"))
    put(group, "image", pixels)
    with open_image(tmp_path / "g.zarr") as reader:
        np.testing.assert_array_equal(whole(reader), pixels)
    group = zarr.create_group(str(tmp_path / "p.zarr"))
    for number in range(11):  # 10 comes after 9, not after 1
        put(group, str(number), pixels[number:])
    with open_image(tmp_path / "p.zarr", level=10) as reader:
        np.testing.assert_array_equal(whole(reader), pixels[10:])
    with open_image(tmp_path / "p.zarr" / "2") as reader:
        np.testing.assert_array_equal(whole(reader), pixels[2:])


def test_wider_values_are_as_stored_or_mapped(tmp_path):
    values = np.arange(0, 4096, 2, dtype=np.uint16).reshape(32, 64)
    store(tmp_path / "a.zarr", values)
    with open_image(tmp_path / "a.zarr") as reader:
        np.testing.assert_array_equal(whole(reader)[:, :, 0], values)
        assert reader.dtype == np.uint16
    with open_image(tmp_path / "a.zarr", value_range=(0, 4095)) as reader:
        np.testing.assert_array_equal(whole(reader)[:, :, 0], np.rint(values * 255.0 / 4095))


def test_a_group_without_an_image_says_what_it_holds(tmp_path):
    zarr.create_group(str(tmp_path / "empty.zarr"))
    with pytest.raises(
        DataError, match=r"empty.zarr is a Zarr group with no array. Expected one array.*empty.zarr/NAME"
    ):
        open_image(tmp_path / "empty.zarr")
    group = zarr.create_group(str(tmp_path / "plates.zarr"))
    group.create_group("A")
    group.create_group("B")
    with pytest.raises(DataError, match=r"no array and the groups A, B"):
        open_image(tmp_path / "plates.zarr")
    group = zarr.create_group(str(tmp_path / "two.zarr"))
    put(group, "left", np.zeros((4, 4), np.uint8))
    put(group, "right", np.zeros((4, 4), np.uint8))
    with pytest.raises(DataError, match=r"the arrays left, right"):
        open_image(tmp_path / "two.zarr")


@pytest.mark.parametrize(
    ("shape", "names", "words"),
    [
        ((3, 40, 50), None, r"shape \(3, 40, 50\) and unnamed axes.*dimension_names"),
        ((4, 4, 4, 4), None, "unnamed axes"),
        ((5, 40, 50), ("t", "y", "x"), r"is a stack of images \(axes t 5\). Name one of its 5 images, from a.zarr#1"),
        ((40, 50), ("a", "b"), r"axes a 40, b 50"),
    ],
)
def test_axes_that_are_no_image_are_named(tmp_path, shape, names, words):
    store(tmp_path / "a.zarr", np.zeros(shape, np.uint8), names=names)
    with pytest.raises(DataError, match=words):
        open_image(tmp_path / "a.zarr")


def test_a_huge_chunk_is_not_decoded_unless_the_limit_is_raised(tmp_path):
    store(tmp_path / "a.zarr", np.zeros((1000, 1000), np.uint8))
    with pytest.raises(DataError, match="one piece of 1000 x 1000"):
        open_image(tmp_path / "a.zarr", max_pixels=999_999)


def test_damaged_metadata_and_plain_folders_are_sentences(tmp_path):
    with pytest.raises(DataError, match="is a folder and not Zarr"):
        open_image(tmp_path)
    store(tmp_path / "a.zarr", np.zeros((4, 4), np.uint8))
    text = (tmp_path / "a.zarr" / "zarr.json").read_text()
    for content in (text[: len(text) // 2], "[]", text.replace('"uint8"', '"quark"')):
        (tmp_path / "a.zarr" / "zarr.json").write_text(content)
        with pytest.raises(DataError, match=r"a.zarr is not a Zarr array or group"):
            open_image(tmp_path / "a.zarr")
    ome_zarr(tmp_path / "o.zarr", [np.zeros((8, 8, 3), np.uint8)] * 2)
    (tmp_path / "o.zarr" / "1" / "zarr.json").unlink()
    with pytest.raises(DataError, match=r"o.zarr lists the level '1' and does not hold it"):
        open_image(tmp_path / "o.zarr")


@pytest.mark.parametrize("version", [2, 3])
def test_a_codec_that_could_run_code_is_refused_before_a_chunk_is_read(tmp_path, version):
    """The chunk is a pickle that would make a file."""
    path = tmp_path / "a.zarr"
    zarr.create_array(str(path), shape=(4, 4), chunks=(4, 4), dtype=np.uint8, zarr_format=version, compressors=None)[
        :
    ] = 1
    name = path / (".zarray" if version == 2 else "zarr.json")
    stored = json.loads(name.read_text())
    if version == 2:
        stored["filters"] = [{"id": "pickle", "protocol": 4}]
    else:
        stored["codecs"].append({"name": "numcodecs.pickle", "configuration": {"protocol": 4}})
    name.write_text(json.dumps(stored))
    with pytest.raises(DataError, match="pickle"):
        open_image(path)


@pytest.mark.parametrize("dtype", ["|O", "|S8", "<c8", "<M8[s]"])
def test_values_that_are_no_numbers_are_refused_before_a_chunk_is_read(tmp_path, dtype):
    path = tmp_path / "a.zarr"
    zarr.create_array(str(path), shape=(4, 4), chunks=(4, 4), dtype=np.uint8, zarr_format=2, compressors=None)[:] = 1
    stored = json.loads((path / ".zarray").read_text()) | {"dtype": dtype, "fill_value": None}
    stored["filters"] = [{"id": "pickle", "protocol": 4}] if dtype == "|O" else None
    (path / ".zarray").write_text(json.dumps(stored))
    with pytest.raises(DataError, match=r"a.zarr (is not a Zarr array or group|holds .* values)"):
        open_image(path)


def test_a_chunk_far_larger_than_its_array_is_refused_by_its_bytes(tmp_path, monkeypatch):
    zarr.create_array(str(tmp_path / "a.zarr"), shape=(4, 4, 3), chunks=(4000, 4000, 3), dtype=np.uint8)
    monkeypatch.setattr(limits, "decode_budget_bytes", lambda: 50_000_000)
    with pytest.raises(DataError, match=r"a.zarr must be decoded in one piece of 4000 x 4000 px, which takes 0.1 GiB"):
        open_image(tmp_path / "a.zarr")


def blosc(version):
    from numcodecs import Blosc
    from zarr.codecs import BloscCodec

    return Blosc() if version == 2 else BloscCodec()


@pytest.mark.parametrize(
    ("version", "shards", "rows"), [(2, None, 16), (3, None, 16), (3, (32, 32), 16), (3, (32, 32), 32)]
)
def test_a_chunk_of_blosc_that_was_cut_short_is_refused(tmp_path, version, shards, rows):
    """numcodecs decodes beyond its end, to pixels that nobody wrote. Of a shard, one chunk is read or all."""
    path, pixels = tmp_path / "a.zarr", np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    how = {"chunks": (16, 16), "shards": shards, "zarr_format": version, "compressors": blosc(version)}
    zarr.create_array(str(path), shape=(32, 32), dtype="uint8", fill_value=0, **how)[...] = pixels
    with open_image(path) as reader:
        np.testing.assert_array_equal(reader.read(0, 32, 0, 32)[..., 0], pixels)
    for file in path.rglob("*"):
        if file.is_file() and file.name not in ("zarr.json", ".zarray", ".zattrs"):
            content = bytearray(file.read_bytes())
            at = 0
            while (at := content.find(b"\x02\x01", at)) >= 0:  # versions of the format and of its codec
                content[at + 12 : at + 16] = (60_000).to_bytes(4, "little")
                at += 16
            file.write_bytes(content)
    with pytest.raises(DataError, match="states 60000 bytes"), open_image(path) as reader:
        reader.read(0, rows, 0, rows)


def test_a_chunk_of_blosc_that_claims_gigabytes_is_refused(tmp_path):
    path = tmp_path / "a.zarr"
    array = zarr.create_array(
        str(path), shape=(16, 16), chunks=(16, 16), dtype="uint8", zarr_format=2, compressors=blosc(2)
    )
    array[...] = np.arange(256).reshape(16, 16)
    content = bytearray((path / "0.0").read_bytes())
    content[4:8] = (2**31 - 100).to_bytes(4, "little")
    (path / "0.0").write_bytes(content)
    with pytest.raises(DataError, match="2147483548 bytes of pixels"), open_image(path) as reader:
        reader.read(0, 16, 0, 16)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["c/0/0", "zarr.json"])
def test_a_pipe_in_place_of_a_file_is_refused(tmp_path, name):
    path = tmp_path / "a.zarr"
    zarr.create_array(str(path), shape=(4, 4), chunks=(4, 4), dtype="uint8")[...] = 1
    (path / name).unlink()
    os.mkfifo(path / name)
    with pytest.raises(DataError, match="is not a regular file"), open_image(path) as reader:
        reader.read(0, 4, 0, 4)
