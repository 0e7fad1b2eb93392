"""The files that GDAL writes beside an image change what its pixels mean, in every format; statistics change nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.imaging.test_envi import write_envi
from unet_dist.errors import RefusedError
from unet_dist.imaging.formats import files_beside
from unet_dist.imaging.image import Interpret
from unet_dist.imaging.reader import open_image
from unet_dist.prediction.jobs import find_left_out

STORED = np.random.default_rng(0).integers(1, 200, (20, 30, 3)).astype(np.uint8)
STORED[3, 4] = 7


def write_tiff(path: Path) -> None:
    tifffile.imwrite(path, STORED, photometric="rgb", extratags=[(42113, "s", 0, "9", True)])


def write_png(path: Path) -> None:
    Image.fromarray(STORED).save(path)


WRITERS: dict[str, Callable[[Path], None]] = {"a.tif": write_tiff, "a.png": write_png}


def write_aux(image: Path, *words: str) -> Path:
    """As GDAL writes it, with the same words for each band."""
    bands = "".join(f'<PAMRasterBand band="{band}">{"".join(words)}</PAMRasterBand>' for band in (1, 2, 3))
    aux = image.with_name(f"{image.name}.aux.xml")
    aux.write_text(f"<PAMDataset>{bands}</PAMDataset>", encoding="utf-8")
    return aux


@pytest.mark.parametrize("name", WRITERS)
def test_no_data_and_scale_beside_go_before_the_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    aux = write_aux(
        path,
        '<NoDataValue le_hex_equiv="0000000000001C40">7</NoDataValue>',
        "<Offset>-3</Offset>",
        "<Scale>0.5</Scale>",
    )
    with open_image(path) as image:
        known, pixels = image.known(0, 20, 0, 30), image.read(0, 20, 0, 30)
    assert known is not None
    assert np.argwhere(~known).tolist() == [[3, 4]]
    assert np.array_equal(pixels[known], (STORED[known] * 0.5 - 3).astype(np.float32))
    assert files_beside(path) == [aux]
    with open_image(path, nodata=200) as image:  # the user's own goes first
        known = image.known(0, 20, 0, 30)
    assert known is None or known.all()
    ids = Interpret(lambda stored: lambda values: values[..., :1])
    with pytest.raises(RefusedError, match="is a mask, and states the scale"):
        open_image(path, interpret=ids)


def test_files_beside_the_raw_file_of_envi_count(tmp_path: Path) -> None:
    header = write_envi(tmp_path / "a", STORED, more="data gain values = {2, 2, 2}\n")
    raw = next(path for path in header.parent.iterdir() if path.suffix != ".hdr")
    write_aux(raw, "<Scale>0.5</Scale>")
    for path in (header, raw):
        with open_image(path) as image:
            assert np.array_equal(image.read(0, 20, 0, 30), STORED * np.float32(0.5))


@pytest.mark.parametrize("name", WRITERS)
def test_statistics_beside_change_nothing(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    write_aux(path, '<Metadata><MDI key="STATISTICS_MEAN">98</MDI></Metadata>')
    with open_image(path) as image:
        assert np.array_equal(image.read(0, 20, 0, 30), STORED)
    assert files_beside(path) == []
    assert find_left_out([str(tmp_path)]) == []


@pytest.mark.parametrize("name", WRITERS)
def test_a_mask_beside_says_where_there_are_data(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    mask = np.full((20, 30), 255, np.uint8)
    mask[5, 6] = 0
    tifffile.imwrite(tmp_path / f"{name}.msk", mask, photometric="minisblack", compression="deflate")
    with open_image(path) as image:
        known, pixels = image.known(0, 20, 0, 30), image.read(0, 20, 0, 30)
    assert known is not None
    assert np.argwhere(~known).tolist() == [[5, 6]]
    assert np.array_equal(pixels, STORED)
    assert [file.name for file in files_beside(path)] == [f"{name}.msk"]
    tifffile.imwrite(tmp_path / f"{name}.msk", mask[1:], photometric="minisblack")
    with pytest.raises(RefusedError, match=f"{name}.msk is 19 x 30, and its image 20 x 30"):
        open_image(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<PAMDataset><PAMRasterBand", "is a damaged or truncated file of GDAL"),
        ('<P><PAMRasterBand band="1"><Scale>much</Scale></PAMRasterBand></P>', "states the scale much"),
        (
            '<P><PAMRasterBand band="1"><NoDataValue>1</NoDataValue></PAMRasterBand>'
            '<PAMRasterBand band="2"><NoDataValue>2</NoDataValue></PAMRasterBand></P>',
            "states 2 values for no data",
        ),
    ],
)
def test_what_cannot_be_kept_is_a_sentence(tmp_path: Path, text: str, says: str) -> None:
    write_png(tmp_path / "a.png")
    (tmp_path / "a.png.aux.xml").write_text(text, encoding="utf-8")
    with pytest.raises(RefusedError, match=says):
        open_image(tmp_path / "a.png")


def test_no_data_beside_a_mask_is_no_label(tmp_path: Path) -> None:
    """A PNG mask as GDAL writes it, with 255 for no data."""
    from unet_dist.data.decoded.decode import Rules, open_mask_of
    from unet_dist.data.decoded.labels import LabelRules
    from unet_dist.data.sources.pairs import RawPair

    ids = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3
    ids[1, 1] = 255
    Image.fromarray(ids).save(tmp_path / "m.png")
    (tmp_path / "m.png.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><NoDataValue>255</NoDataValue></PAMRasterBand></PAMDataset>',
        encoding="utf-8",
    )
    rules: Rules = LabelRules(num_classes=3)
    pair = RawPair("m", tmp_path / "m.png", tmp_path / "m.png", "m", "m")
    with open_mask_of(pair, rules, 10**6) as mask:
        assert np.array_equal(mask.read(0, 3, 0, 4)[..., 0], ids)
