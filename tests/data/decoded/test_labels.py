"""Ids of masks are read, never converted; an id without a meaning is refused with the finding and the remedy."""

import io

import numpy as np
import pytest
import tifffile
import yaml
from PIL import Image

from tests.data.pictures import palette_png, png, png_of_bits
from unet_dist.data.decoded.decode import open_mask_of
from unet_dist.data.decoded.guesses import explain_ids
from unet_dist.data.decoded.label_map import LabelMap
from unet_dist.data.decoded.labels import IGNORED, LabelRules, explain_gaps
from unet_dist.data.sources.pairs import RawPair
from unet_dist.errors import ConfigError, RefusedError
from unet_dist.imaging.image import Interpret
from unet_dist.imaging.reader import open_image


def read(content: bytes, **rules) -> np.ndarray:
    """Read a mask as `prepare` does, without the name that its refusals bear."""
    pair = RawPair("a", b"", content, "", "")
    try:
        with open_mask_of(pair, LabelRules(**{"num_classes": None, **rules}), 10**6) as reader:
            return reader.read(0, reader.shape[0], 0, reader.shape[1])[..., 0]
    except RefusedError as error:
        raise RefusedError(error.got.removeprefix("mask  "), error.remedy) from error


IDS = np.array([[0, 1, 2], [2, 1, 0]], dtype=np.uint8)


def test_grey_ids_are_the_classes():
    label = read(png(IDS), num_classes=3)
    assert label.dtype == np.uint8
    assert (label == IDS).all()


@pytest.mark.parametrize("bits", [1, 2, 4, 16])
def test_every_grey_depth_gives_its_ids_as_they_are(bits):
    """Pillow shows 2 and 4 bits scaled to 0..255."""
    rows = [[0, 1, min(3, 2**bits - 1)], [min(14, 2**bits - 1), 0, 1]]
    assert read(png_of_bits(rows, bits)).tolist() == rows


def test_16_bit_ids_beyond_255_are_not_clipped():
    rows = [[300, 7], [65535, 300]]
    label = read(png_of_bits(rows, 16), label_map={300: 1, 7: 0, 65535: 9}, ignore_index=9, num_classes=2)
    assert label.tolist() == [[1, 0], [IGNORED, 1]]
    with pytest.raises(RefusedError, match=r"holds ids 300 \(2 px\), 65535 \(1 px\), outside 0 to 1"):
        read(png_of_bits(rows, 16), num_classes=2, ignore_index=7)


def test_ignore_index_becomes_255_inside_and_outside_the_classes():
    assert read(png(IDS), num_classes=3, ignore_index=1).tolist() == [[0, IGNORED, 2], [2, IGNORED, 0]]
    assert read(png(IDS), num_classes=2, ignore_index=2).tolist() == [[0, 1, IGNORED], [IGNORED, 1, 0]]


def test_an_id_out_of_range_is_named_with_its_count():
    with pytest.raises(RefusedError) as caught:
        read(png(IDS), num_classes=2)
    assert str(caught.value) == (
        "holds id 2 (2 px), outside 0 to 1 (num_classes: 2). "
        "Set --num_classes 3, --ignore_index for an id that means nothing, or --label_map."
    )


def test_255_is_not_silently_ignored():
    with pytest.raises(RefusedError, match=r"holds id 255 \(1 px\), outside 0 to 254\. .*set --ignore_index 255\.$"):
        read(png(np.array([[0, 1, 255]], dtype=np.uint8)))
    with pytest.raises(RefusedError, match=r"If 255 is class 1, set --label_map '\{0: 0, 255: 1\}'; if 255 marks"):
        read(png(np.array([[0, 255]], dtype=np.uint8)), num_classes=2)
    assert read(png(np.array([[0, 255]], dtype=np.uint8)), label_map={0: 0, 255: 1}).tolist() == [[0, 1]]


COLOURS = [(255, 0, 0), (0, 128, 0), (9, 9, 9)]


def test_a_palette_mask_needs_a_label_map():
    with pytest.raises(RefusedError) as caught:
        read(palette_png(IDS, COLOURS), num_classes=3)
    assert str(caught.value) == (
        "has a palette and there is no label_map. Say what the palette's indices or colours mean. "
        "If the indices are the class ids: --label_map '{0: 0, 1: 1, 2: 2}'."
    )


PASCAL = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}


def test_the_palette_of_pascal_voc_means_its_ids_and_void():
    indices = np.array([[0, 1, 2, 15, 20, 255]], dtype=np.uint8)
    colours = [PASCAL.get(index, (1, 2, 3)) for index in range(256)]
    assert read(palette_png(indices, colours), num_classes=21).tolist() == [[0, 1, 2, 15, 20, IGNORED]]
    with pytest.raises(RefusedError, match=r"holds ids? 15 .*outside 0 to 4"):
        read(palette_png(indices, colours), num_classes=5)
    with pytest.raises(RefusedError, match="has a palette and there is no label_map"):
        read(palette_png(indices, [(9, 9, 9), *colours[1:]]), num_classes=21)


def test_a_palette_mask_is_read_by_index_or_by_colour():
    content = palette_png(IDS, COLOURS)
    assert read(content, label_map={0: 2, 1: 1, 2: 0}).tolist() == (2 - IDS).tolist()
    colour_map = {"#ff0000": 2, "0,128,0": 1, "(9, 9, 9)": 0}
    assert read(content, label_map=colour_map).tolist() == (2 - IDS).tolist()


def test_a_colour_mask_needs_and_follows_a_label_map():
    content = png(np.array(COLOURS, dtype=np.uint8)[IDS])
    with pytest.raises(
        RefusedError, match=r"in colours and there is no label_map.*--label_map '\{.*\"#ff0000\": [012].*\}'\.$"
    ):
        read(content)
    assert read(content, label_map={"#ff0000": 0, "#008000": 1, "#090909": 2}).tolist() == IDS.tolist()
    with pytest.raises(RefusedError, match=r'colours that label_map does not name: "#090909" \(2 px\)'):
        read(content, label_map={"#ff0000": 0, "#008000": 1})
    with pytest.raises(RefusedError, match="label_map has ids as keys"):
        read(content, label_map={0: 0})


def test_ids_without_a_meaning_in_the_map_are_refused():
    with pytest.raises(RefusedError, match=r"holds id 2 \(2 px\), which label_map does not name"):
        read(png(IDS), label_map={0: 0, 1: 1})
    with pytest.raises(RefusedError, match="holds ids, and label_map gives the meaning of colours"):
        read(png(IDS), label_map={"#ffffff": 0})


def test_transparent_or_strange_masks_are_refused():
    pixels = np.zeros((2, 2, 4), dtype=np.uint8)
    with pytest.raises(RefusedError, match="transparent"):
        read(png(pixels), label_map={"#000000": 0})
    pixels[..., 3] = 255
    assert read(png(pixels), label_map={"#000000": 0}).tolist() == [[0, 0], [0, 0]]


def tiff(values: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("dtype", [np.uint16, np.int64, np.float16, np.float32, np.float64])
def test_whole_numbers_are_ids_in_any_type(dtype):
    assert read(tiff(IDS.astype(dtype)), num_classes=3).tolist() == IDS.tolist()


def test_floats_that_are_no_whole_numbers_are_refused():
    values = IDS.astype(np.float32)
    values[0, 1] = 0.5
    with pytest.raises(RefusedError, match=r"float32 values that are no ids, such as 0.5 \(1 px\)"):
        read(tiff(values), num_classes=3)
    values[0, 1] = np.nan
    with pytest.raises(RefusedError, match="such as nan"):
        read(tiff(values), num_classes=3)


def test_a_webp_that_loses_is_no_mask_of_ids():
    buffer = io.BytesIO()
    Image.fromarray(np.repeat(IDS[..., None], 3, axis=2)).save(buffer, "WEBP", quality=90)
    with pytest.raises(RefusedError, match="is a lossy WebP, which changes ids"):
        read(buffer.getvalue())


def marked(values: np.ndarray, nodata: str) -> bytes:
    """A mask whose file says which value stands for no data, as GDAL writes it."""
    tags = [(42113, "s", 0, nodata, True)]
    return tiff(values, photometric="minisblack", metadata=None, extratags=tags)


@pytest.mark.parametrize(
    ("value", "dtype"), [(255, np.uint8), (-9999, np.int16), (-1, np.float32), (np.nan, np.float32)]
)
def test_what_the_mask_itself_calls_no_data_is_no_label_where_it_can_be_no_class(value, dtype):
    values = np.where(IDS == 2, value, IDS.astype(np.float64)).astype(dtype)
    assert read(marked(values, f"{value}")).tolist() == np.where(IDS == 2, IGNORED, IDS).tolist()
    assert read(marked(IDS.astype(dtype), f"{value}")).tolist() == IDS.tolist()
    assert (read(marked(np.full_like(values, value), f"{value}")) == IGNORED).all()


def test_no_data_that_may_be_a_class_is_refused_until_somebody_says():
    mask = marked(IDS, "0")
    with pytest.raises(RefusedError, match=r"the id 0 \(2 px\), which the file itself calls no data") as refused:
        read(mask, num_classes=3)
    assert "say ignore_index: 0" in refused.value.remedy
    assert "label_map: {0: 0, 1: 1, 2: 2}" in refused.value.remedy
    assert read(mask, label_map={0: 0, 1: 1, 2: 2}).tolist() == IDS.tolist()
    assert read(mask, num_classes=3, ignore_index=0).tolist() == np.where(IDS == 0, IGNORED, IDS).tolist()
    assert read(marked(IDS + np.uint8(1), "0"), num_classes=4).tolist() == (IDS + 1).tolist()


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
def test_ids_below_zero_are_named_as_they_are(dtype):
    with pytest.raises(RefusedError, match=r"holds id -1 \(2 px\), outside 0 to 65535"):
        read(tiff(IDS.astype(dtype) - dtype(1)))


def test_an_opaque_alpha_beside_ids_is_dropped_and_grey_in_colours_is_ids_through_a_map():
    assert read(png(np.dstack([IDS, np.full_like(IDS, 255)])), num_classes=3).tolist() == IDS.tolist()
    rgba = np.dstack([IDS, IDS, IDS, np.full_like(IDS, 255)])
    with pytest.raises(RefusedError, match=r"grey. If each is a class: --label_map '\{0: 0, 1: 1, 2: 2\}'\.$"):
        read(png(rgba))
    assert read(png(rgba), label_map={0: 0, 1: 1, 2: 2}).tolist() == IDS.tolist()


def test_soft_edges_and_jpeg_are_read_by_ranges():
    shades = np.array([[0] * 60, [255] * 60, [*range(0, 240, 4)]], dtype=np.uint8)
    proposed = r"looks like black and white with soft edges.*--label_map '\{\"0-127\": 0, \"128-255\": 1\}'\.$"
    with pytest.raises(RefusedError, match=proposed):
        read(png(shades))
    ranges = {"0-127": 0, "128-255": 1}
    assert read(png(shades), label_map=ranges).tolist() == (shades >= 128).tolist()
    buffer = io.BytesIO()
    Image.fromarray(np.repeat([[0, 255]], 16, axis=0).repeat(16, axis=1).astype(np.uint8)).save(buffer, "JPEG")
    with pytest.raises(RefusedError, match=r"is a JPEG, which changes ids .*label_map '\{\"0-127\": 0"):
        read(buffer.getvalue())
    assert read(buffer.getvalue(), label_map=ranges).tolist() == [[0] * 16 + [1] * 16] * 16


def test_a_mask_whose_zero_is_white_is_read_as_shown_once_a_map_says_so():
    inverted = tiff(IDS, photometric="miniswhite")
    with pytest.raises(RefusedError, match=r"stores white as 0.*label_map '\{253: 2, 254: 1, 255: 0\}'\.$"):
        read(inverted, num_classes=3)
    assert read(inverted, label_map={253: 2, 254: 1, 255: 0}).tolist() == IDS.tolist()
    buffer = io.BytesIO()
    fax = "group4" if 4 in tifffile.TIFF.DECOMPRESSORS else "tiff_deflate"  # an older imagecodecs reads no fax
    Image.fromarray(IDS > 0).save(buffer, "TIFF", compression=fax)
    assert read(buffer.getvalue(), num_classes=2).tolist() == (IDS > 0).tolist()
    assert read(tiff(IDS > 0, photometric="miniswhite"), num_classes=2).tolist() == (IDS == 0).tolist()


def test_ids_with_gaps_are_explained_in_full():
    counts = np.zeros(255, dtype=np.int64)
    counts[[200, 210, 220]] = 5
    assert explain_gaps(counts) == (
        "its masks hold 3 ids with gaps between 0 and 220. If these are the classes, set --label_map '{200: 0, 210: 1, "
        "220: 2}'; if the ids between are classes too, --num_classes 221."
    )
    counts[:] = 0
    counts[:7] = 3
    assert explain_gaps(counts) is None
    counts[:] = 1
    counts[[0, 254]] = 1000
    assert "soft edges" in (explain_gaps(counts) or "")


def _present(*last: int, num_ids: int = 255) -> np.ndarray:
    """Counts of images whose ids are 0 to `last` of each."""
    return (np.arange(num_ids) <= np.array(last)[:, None]).astype(np.int64) * 7


def test_numbers_of_objects_are_no_classes():
    """As cellpose and others write them: each image counts its own."""
    assert explain_ids(_present(4, 9, 7, 9)) == (
        "the ids of each mask are 1, 2, 3 ... up to a number of its own (4 to 9), as where they number objects. If they do, set "
        "--label_map '{0: 0, 1-65535: 1}'; if these are classes, --num_classes 10."
    )
    assert LabelRules(num_classes=None, label_map=yaml.safe_load("{0: 0, 1-65535: 1}")).map_ids(IDS).max() == 1
    for classes in (_present(9, 9, 9), _present(2, 5, 4, 3), _present(7, 9, 9, 7)):
        assert explain_ids(classes) is None
    some_lack = _present(9, 8, 7)
    some_lack[1, 3] = 0  # an image without class 3
    assert explain_ids(some_lack) is None


def test_masks_of_one_id_are_nothing_to_learn():
    assert "the id 0 alone" in (explain_ids(_present(0, 0)) or "")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_map": {"red": 0}}, "the key 'red' is neither an id"),
        ({"label_map": {"300,0,0": 0}}, "the key '300,0,0' is neither"),
        ({"label_map": {}}, "it is empty"),
        ({"label_map": {0: 0, "#000000": 1}}, "both ids and colours"),
        ({"label_map": {0: -1}}, "leads to -1"),
        ({"label_map": {0: 5}, "num_classes": 2}, "leads to 5; expected classes 0 to 1"),
        ({"num_classes": 65536}, "num_classes: got 65536; expected 1 to 65535"),
        ({"ignore_index": -100}, "ignore_index: got -100.*no effect"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        LabelRules(**{"num_classes": None, **settings})


def test_keys_may_be_text_as_yaml_and_the_command_line_give_them():
    assert LabelMap.parse({"7": 1, "8": 0}) == LabelMap({7: 1, 8: 0}, {})
    assert LabelMap.parse({"#0000FF": 3}) == LabelMap({}, {255: 3})


@pytest.mark.parametrize("dtype", [np.int8, np.float32])
def test_indices_of_a_palette_that_are_no_such_numbers_are_refused(dtype):
    """As a TIFF whose sample format changed holds them."""
    rules, palette = LabelRules(num_classes=3), np.zeros((256, 3), dtype=np.uint8)
    with pytest.raises(RefusedError, match="holds the indices of a palette as"):
        rules.map_values(np.full((2, 2, 1), -1, dtype=dtype), palette)


@pytest.mark.parametrize(
    ("compression", "lossy", "lossless", "name"),
    [
        ("webp", {"lossless": False}, {"lossless": True}, "lossy WebP"),
        ("jpegxl", {"lossless": False, "level": 50}, {"lossless": True}, "lossy JPEG XL"),
        ("lerc", {"level": 1}, {}, "lossy LERC"),
        ("lerc", {"level": 1, "compression": "deflate"}, {"compression": "deflate"}, "lossy LERC"),
    ],
)
def test_a_tiff_that_loses_is_no_mask_of_ids(tmp_path, compression, lossy, lossless, name):
    """Between the ids 0 and 2 such a codec writes 1, which is a class as well."""
    ids = np.broadcast_to(np.arange(48, dtype=np.uint8) // 16, (32, 48))
    ids = np.dstack([ids] * 3) if compression == "webp" else ids
    rules = LabelRules(num_classes=None, label_map={0: 0, 1: 1, 2: 2} if compression == "webp" else None)
    colours = {"photometric": "rgb"} if compression == "webp" else {"photometric": "minisblack"}
    how = Interpret(lambda stored: lambda values: rules.reader_of(stored)(values)[..., None])
    path = tmp_path / "m.tif"
    tifffile.imwrite(path, ids, compression=compression, compressionargs=lossy, **colours)
    with pytest.raises(RefusedError, match=f"is a {name}, which changes ids when it compresses"):
        open_image(path, interpret=Interpret(rules.reader_of))
    tifffile.imwrite(path, ids, compression=compression, compressionargs=lossless, **colours)
    with open_image(path, interpret=how) as mask:
        np.testing.assert_array_equal(mask.read(0, 32, 0, 48)[..., 0], ids[..., 0] if ids.ndim == 3 else ids)


@pytest.mark.parametrize(
    ("compression", "how", "name"),
    [
        ("jpeg2000", {}, "JPEG 2000"),
        ("jpeg2000", {"level": 20, "reversible": True}, "JPEG 2000"),
        ("jpegxr", {"level": 0.5}, "JPEG XR"),
        ("lerc", {"level": 1, "compression": "zstd"}, r"TIFF whose compression \(34887\) may lose"),
    ],
)
def test_a_tiff_that_does_not_show_that_it_is_exact_is_no_mask_of_ids(tmp_path, compression, how, name):
    """A reversible JPEG 2000 that was cut at a rate says nothing of it, nor does a JPEG XR."""
    ids = np.broadcast_to(np.arange(48, dtype=np.uint8) // 16, (32, 48))
    rules = LabelRules(num_classes=None)
    tifffile.imwrite(tmp_path / "m.tif", ids, compression=compression, compressionargs=how, photometric="minisblack")
    with pytest.raises(RefusedError, match=f"is a {name}, which changes ids when it compresses"):
        open_image(tmp_path / "m.tif", interpret=Interpret(rules.reader_of))


def test_planes_of_classes_are_no_transparency():
    """As numpy writes masks of one bit per class."""
    one_hot = np.eye(4, dtype=np.uint8)[np.zeros((2, 3), int)]
    with pytest.raises(
        RefusedError, match=r"holds 4 planes, of which one is 1 in each pixel\. Write the number of the class"
    ):
        LabelRules(num_classes=4).map_values(one_hot)
