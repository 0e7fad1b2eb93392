"""A table of paths gives the pairs, splits and groups that its columns name, in any of its forms."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.data.pictures import random_pair, write_folder
from unet_dist.assembly.data_set import open_data
from unet_dist.config.sections import Config
from unet_dist.data.decoded.cache import Cache
from unet_dist.data.sources.registry import open_source
from unet_dist.errors import DataError
from unet_dist.terminal import Teller

Rows = list[dict[str, str]]


def rows(root: Path, num: int = 6) -> Rows:
    write_folder(root, num_pairs=num)
    return [{"img": f"images/sample{i:03d}.png", "mask": f"masks/sample{i:03d}.png"} for i in range(num)]


def write(path: Path, table: Rows) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table))
    elif path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(table), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(table[0]), delimiter="\t" if path.suffix == ".tsv" else ";")
            writer.writeheader()
            writer.writerows(table)
    return path


def open_with(path: Path, said: list[str], tmp_path: Path, **keys: object) -> Cache:
    teller = Teller(speaks=False)
    teller.say = said.append  # type: ignore[method-assign]
    config = Config(data_path=str(path), cache_path=str(tmp_path / "cache"), **keys)  # type: ignore[arg-type]
    return open_data(config, teller)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_splits_by_a_column(tmp_path, suffix):
    table = [
        {**row, "split": split}
        for row, split in zip(rows(tmp_path / "d"), ["train"] * 3 + ["val"] + ["test"] * 2, strict=True)
    ]
    said: list[str] = []
    cache = open_with(write(tmp_path / f"d/list{suffix}", table), said, tmp_path)
    assert {name: len(positions) for name, positions in cache.splits.items()} == {
        "train": 3,
        "validation": 1,
        "test": 2,
    }
    assert cache.split("val").ids == ["sample003"]
    image, mask = random_pair(3)
    assert (cache.split("val").image(0) == image).all()
    assert (np.asarray(cache.split("val").label(0)[:, :]) == mask).all()
    assert said[0] == "list: read as --image_column img --label_column mask; splits from the column split"


def test_groups_stay_together(tmp_path):
    table = [{**row, "patient": f"p{number // 2}"} for number, row in enumerate(rows(tmp_path / "d", 10))]
    cache = open_with(write(tmp_path / "d/list.csv", table), [], tmp_path)
    found = {name: {one.partition("--")[0] for one in cache.split(name).ids} for name in cache.splits}
    assert sum(map(len, found.values())) == len(set.union(*found.values())) == 5


def test_group_by_names_a_column_or_is_a_pattern(tmp_path):
    """A column goes before the usual names of columns; what names none is a pattern of ids, as everywhere."""
    table = [
        {**row, "patient": "all", "ward": f"w{number // 2}"} for number, row in enumerate(rows(tmp_path / "d", 10))
    ]
    path = write(tmp_path / "d/list.csv", table)
    cache = open_with(path, [], tmp_path, group_by="ward")
    found = {name: {one.partition("--")[0] for one in cache.split(name).ids} for name in cache.splits}
    assert sum(map(len, found.values())) == len(set.union(*found.values())) == 5
    assert len(open_with(path, [], tmp_path / "b", group_by=r".*sample\d\d\d").splits) == 3
    with pytest.raises(DataError, match=r"group_by: got 'wardd', which does not match 10 of 10 ids, such as 'all--"):
        open_with(path, [], tmp_path / "c", group_by="wardd").splits  # noqa: B018


def test_paths_from_elsewhere_and_other_columns(tmp_path):
    table = [
        {"a": str(tmp_path / "d" / row["img"]), "b": str(tmp_path / "d" / row["mask"])} for row in rows(tmp_path / "d")
    ]
    (tmp_path / "lists").mkdir()
    path = write(tmp_path / "lists/list.csv", table)
    with pytest.raises(
        DataError, match=r"no column with the paths of the images among a, b\. Name it: --image_column NAME"
    ):
        open_with(path, [], tmp_path)
    assert len(open_with(path, [], tmp_path, image_column="a", label_column="b")) == 6


def test_another_split_is_another_data_set(tmp_path):
    table = [{**row, "split": split} for row, split in zip(rows(tmp_path / "d"), ["train", "val"] * 3, strict=True)]
    before = open_source(write(tmp_path / "d/list.csv", table)).signature(tmp_path / "memo")
    table[0]["split"] = "test"
    assert open_source(write(tmp_path / "d/list.csv", table)).signature(tmp_path / "memo") != before


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"split": "fold1"}, r"list.csv, row 2: fold1 is not a known split"),
        ({"split": ""}, r"list.csv, row 2: it has no split"),
        ({"mask": ""}, r"list.csv, row 2: it has no mask"),
        ({"img": "images/none.png"}, r"files that are not there: .*images/none.png"),
        ({"img": "images/sample000.png"}, r"row 2: sample000.png is in row 1, too"),
    ],
)
def test_rows_that_cannot_be_used(tmp_path, change, sentence):
    table = [{**row, "split": "train"} for row in rows(tmp_path / "d")]
    table[1] |= change
    path = write(tmp_path / "d/list.csv", table)
    with pytest.raises(DataError, match=sentence):
        _ = open_source(path).splits


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("t.jsonl", "[1, 2]\n", "line 1: got a list, expected an object"),
        ("t.jsonl", '{"image": "a", "mask": "b"}\n5\n', "line 2: got 5, expected an object"),
        ("t.jsonl", "[" * 100_000, "line 1"),
        ("t.csv", "image,mask\n" + "y" * 5000 + ",m.png\n", "files that are not there"),
        ("t.csv", "image,mask\na\0.png,~nobody-at-all/m.png\n", "files that are not there"),
        ("t.csv", "image,mask\n", "it has no rows"),
        (
            "t.csv",
            "image,mask,split\na.png,,train\na.png,m.png,odd\n",
            "row 1: it has no mask, row 2: odd is not a known split",
        ),
    ],
)
def test_tables_that_somebody_else_wrote(tmp_path, name, content, sentence):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=sentence) as refusal:
        _ = open_source(tmp_path / name).splits
    assert len(str(refusal.value)) < 1000


def test_a_table_with_pictures_in_it_names_its_folder(tmp_path):
    import pyarrow
    import pyarrow.parquet

    pictures = [{"bytes": b"x", "path": None}]
    pyarrow.parquet.write_table(pyarrow.table({"image": pictures, "mask": pictures}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"its column image holds pictures, expected paths. Give the folder"):
        _ = open_source(tmp_path / "t.parquet").splits


def test_paths_as_windows_and_macs_write_them(tmp_path):
    """Backslashes, decomposed accents, spaces behind commas, UTF-16 of PowerShell."""
    table = rows(tmp_path / "d", 2)
    for kind in ("images", "masks"):
        (tmp_path / "d" / kind / "sample001.png").rename(tmp_path / "d" / kind / "\u00e9.png")
    text = "image, mask\r\nimages\\sample000.png, masks\\sample000.png\r\nimages/e\u0301.png, masks/e\u0301.png\r\n"
    (tmp_path / "d/list.csv").write_bytes(text.encode("utf-16"))
    source = open_source(tmp_path / "d/list.csv")
    assert source.splits == {"train": len(table)}
    assert [source.read_pair("train", i).id for i in range(2)] == ["sample000", "\u00e9"]


def test_a_link_keeps_its_name(tmp_path):
    """git-annex and DVC put the content elsewhere, under its digest."""
    rows(tmp_path / "d", 1)
    (tmp_path / "d/objects").mkdir()
    image = tmp_path / "d/images/sample000.png"
    image.rename(tmp_path / "d/objects/c0ffee")
    image.symlink_to("../objects/c0ffee")
    (tmp_path / "d/list.csv").write_text("image,mask\nimages/sample000.png,masks/sample000.png\n")
    pair = open_source(tmp_path / "d/list.csv").read_pair("train", 0)
    assert (pair.id, pair.image_name) == ("sample000", "images/sample000.png")
