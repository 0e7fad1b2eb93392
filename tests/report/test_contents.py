"""Proves what a page says of a run's folder: its numbers against the files, and each missing part with the command that adds it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.report.fabricated import fabricate
from unet_dist.commands.report import run as report
from unet_dist.config.options import ReportOptions
from unet_dist.config.sections import Config
from unet_dist.errors import CheckpointError, ConfigError
from unet_dist.report.charts import MAX_POINTS, _images_chart, _iou_chart, column, run_charts, smooth
from unet_dist.report.comparison import Column, columns_of, compare, differing_keys
from unet_dist.report.contents import read_run
from unet_dist.report.page import comparison_page, run_page
from unet_dist.report.plots import _curves, _iou
from unet_dist.report.published import PUBLISHED, published_for
from unet_dist.report.summary import (
    ClassScore,
    class_scores,
    headline,
    missing,
    status,
    training_seconds,
    worst_classes,
)

SCORED = '"miou": 1.0, "pixel_accuracy": 1.0, "iou": {}'
EMPTY = '{"error": 0.1, "pixels": [], "right": [], "confidence": []}'


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate(tmp_path_factory.mktemp("runs") / "finished", ignore_index=34)


def data_of(html: str) -> dict[str, Any]:
    """The page's embedded data."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found
    return dict(json.loads(found[1]))


# --------------------------------------------------------------------------------------------------------- a run


def test_headline_numbers_are_those_of_the_files(finished: Path) -> None:
    run = read_run(finished)
    evaluation = json.loads((finished / "evaluation-test.json").read_text())
    tiles = {tile.title: tile.value for tile in headline(run, "test")}
    assert tiles["mean IoU"] == f"{evaluation['miou']:.4f}"
    assert tiles["best mean IoU"] == f"{run.validations[-1]['miou']:.4f}"
    assert tiles["steps"] == "300"
    assert tiles["peak memory"] == "3.00 GiB"
    assert training_seconds(run) == pytest.approx(300 * 16 / 10)
    assert status(run) == "finished, 300 steps"
    assert missing(run, "test") == []


def test_classes_stand_beside_their_frequency_and_what_they_are_taken_for(finished: Path) -> None:
    run = read_run(finished)
    evaluation = run.evaluations["test"]
    scores = class_scores(run, "test")
    assert [score.name for score in scores] == run.class_names[:34]  # the ignored one is in no table
    confusion = np.array(evaluation["confusion"])
    for index, score in enumerate(scores):
        assert score.iou == evaluation["iou"][score.name]
        assert score.split_share == pytest.approx(confusion[index].sum() / confusion.sum())
        off_diagonal = confusion[index].copy()
        off_diagonal[index] = 0
        assert score.taken_for == run.class_names[int(off_diagonal.argmax())]
        assert score.taken_share == pytest.approx(off_diagonal.max() / confusion[index].sum())
    worst = worst_classes(scores, 3)
    assert [score.iou for score in worst] == sorted(score.iou for score in scores if score.iou is not None)[:3]


def test_confusion_is_normalised_by_row_and_keeps_its_counts(finished: Path) -> None:
    run = read_run(finished)
    figure = run_charts(run, "test", class_scores(run, "test"))["confusion"]
    heatmap = figure.data[0]
    shares = np.array(heatmap.z, dtype=float)
    assert shares.sum(axis=1) == pytest.approx(1, abs=0.002)
    assert np.array(heatmap.customdata).tolist() == np.array(run.evaluations["test"]["confusion"])[:34, :34].tolist()


def test_curve_is_thinned_by_means_and_smoothed_without_a_lag() -> None:
    records = [{"step": step, "loss": float(step)} for step in range(1, 3 * MAX_POINTS + 1)] + [
        {"step": 9, "loss": None}
    ]
    steps, values = column(records, "loss")
    assert len(steps) <= MAX_POINTS
    assert values == pytest.approx(steps)
    assert steps[0] == 2
    assert smooth(values) == pytest.approx(values)  # a straight line stays one


def test_a_page_holds_all_and_ends_no_element_early(tmp_path: Path) -> None:
    hostile = ["</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "sky"]
    folder = fabricate(tmp_path / "a<b", class_names=hostile)
    html = run_page(read_run(folder))
    data = data_of(html)
    assert [entry["name"] for entry in data["classes"]] == hostile
    assert {"loss", "rate", "miou", "iou", "confusion", "calibration", "images"} == set(data["charts"])
    assert [picture["reason"] for picture in data["pictures"]] == ["spread", "spread", "worst", "worst"]
    assert "<img src=x" not in html
    assert "<script>alert" not in html
    assert "<h1>a&lt;b</h1>" in html


def test_names_in_charts_are_words(tmp_path: Path) -> None:
    """Plotly reads HTML in any text, and takes names of digits for numbers, by which it sorts."""
    folder = fabricate(tmp_path / "<b>run</b>", class_names=['<a href="https://x">a</a>', "10", "9 & <br>"])
    charts = data_of(comparison_page([read_run(folder)]))["charts"] | data_of(run_page(read_run(folder)))["charts"]
    for name in ("iou", "confusion", "images"):
        words = json.dumps(
            [{key: trace.get(key) for key in ("name", "x", "y", "text")} for trace in charts[name]["data"]]
        )
        assert "<" not in words, name
    assert charts["iou"]["layout"]["yaxis"]["type"] == "category"
    assert charts["iou"]["layout"]["yaxis2"]["type"] == "category"
    assert {charts["confusion"]["layout"][f"{axis}axis"]["type"] for axis in "xy"} == {"category"}
    assert set(charts["confusion"]["data"][0]["x"]) == {
        '&lt;a href="https://x"&gt;a&lt;/a&gt;',
        "10",
        "9 &amp; &lt;br&gt;",
    }


def test_charts_are_drawn_by_the_library_that_the_page_holds(finished: Path) -> None:
    html = run_page(read_run(finished))
    (packed,) = re.findall(r'<script type="application/gzip" id="library">(.*?)</script>', html)
    text = gzip.decompress(base64.b64decode(packed))
    assert text.startswith(b"/**\n* plotly.js (cartesian - minified) v4.")
    digest = base64.b64encode(hashlib.sha256(text).digest()).decode()
    assert f"'sha256-{digest}'" in html


def test_pictures_are_as_many_as_asked_for(finished: Path) -> None:
    assert len(data_of(run_page(read_run(finished), max_pictures=3))["pictures"]) == 3
    assert data_of(run_page(read_run(finished), max_pictures=0))["pictures"] == []


# ------------------------------------------------------------------------------------------------- what is missing


def test_an_unfinished_run_shows_what_is_recorded(tmp_path: Path) -> None:
    folder = fabricate(tmp_path / "going", done=220, is_evaluated=False)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 230, "spl')  # training is writing this line
    run = read_run(folder)
    assert status(run) == "unfinished: step 220 of 300"
    (text, command), (unfinished, _) = missing(run, run.shown_split())
    assert "was not evaluated" in text
    assert command == f"unet-dist evaluate {folder} --split test"
    assert "unfinished" in unfinished
    html = run_page(run)
    assert set(data_of(html)["charts"]) == {"loss", "rate", "miou", "iou"}
    assert command in html
    assert "at step 200" in html  # the classes are those of the last validation


def test_a_run_without_a_record_is_no_error(tmp_path: Path) -> None:
    folder = fabricate(tmp_path / "new", done=0, is_evaluated=False)
    run = read_run(folder)
    assert missing(run, None) == [
        ("There is no model to evaluate yet: the first comes with the first validation.", None)
    ]
    assert "Nothing is recorded yet" in run_page(run)


def test_an_evaluation_older_than_the_best_model_is_named(tmp_path: Path) -> None:
    folder = fabricate(tmp_path / "run")
    path = folder / "evaluation-test.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "step": 100}))
    ((text, command),) = missing(read_run(folder), "test")
    assert text.startswith("The evaluation is of step 100; the best model is now that of step 300.")
    assert command == f"unet-dist evaluate {folder} --split test"


def test_a_run_of_an_older_release_is_read(tmp_path: Path) -> None:
    """Without data.json, environment.json, and with the four keys that an evaluation had at first."""
    folder = fabricate(tmp_path / "run")
    for name in ("data.json", "environment.json"):
        (folder / name).unlink()
    path = folder / "evaluation-test.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({key: record[key] for key in ("miou", "iou", "pixel_accuracy", "confusion")}))
    html = run_page(read_run(folder))
    assert "The evaluation is of an older release" in html
    assert "No machine is recorded" in html


def test_missing_pictures_are_left_out(tmp_path: Path) -> None:
    folder = fabricate(tmp_path / "run")
    (folder / "pictures" / "test-00001-label.png").unlink()
    (folder / "pictures" / "test-00002.webp").write_bytes(b"RIFF")
    assert [p["name"] for p in data_of(run_page(read_run(folder)))["pictures"]] == ["test-00000", "test-00003"]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("config.yaml", None, r"got no config\.yaml there, expected the folder of a run"),
        ("config.yaml", "a: [", r"config\.yaml: not readable as YAML: "),
        ("config.yaml", "batch_size: 1", r"config\.yaml: got an object without .total_steps"),
        ("config.yaml", "total_steps: 1", r"config\.yaml: got an object without .batch_size"),
        ("evaluation-test.json", "{", r"evaluation-test\.json is damaged: .* Remove it, and run evaluate again\."),
        (
            "evaluation-test.json",
            '{"confusion": [[1]], "miou": 1.0, "iou": {}}',
            r"evaluation-test\.json: got no pixel_accuracy, ",
        ),
        ("data.json", "[]", r"data\.json: got a list, expected an object\. Remove it: "),
        *(
            ("evaluation-test.json", f"{{{SCORED}, {more}}}", sentence)
            for more, sentence in (
                ('"confusion": [[-1]]', "below 0 or beyond 64 bits"),
                ('"confusion": [[4611686018427387904, 4611686018427387904], [0, 0]]', "below 0 or beyond 64 bits"),
                ('"counts": {"a": {"true_positives": 1}}', "true_negatives|false"),
                (f'"confusion": [[1]], "calibration": {EMPTY}', "lists that are empty"),
            )
        ),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: str | None, sentence: str) -> None:
    folder = fabricate(tmp_path / "run", pictures=0)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    with pytest.raises(CheckpointError, match=sentence):
        read_run(folder)


def test_records_of_strange_numbers_are_shown(tmp_path: Path) -> None:
    """A pace that makes the time endless, a score that is not there, classes that are ignored from the end."""
    folder = fabricate(tmp_path / "run", pictures=0, class_names=["a", "b", "c"])
    for record in (
        {"step": 10**6, "split": "train", "images_per_s": 1e-320},
        {"step": 10**6, "split": "validation", "miou": 0.9, "miou_present": None, "ignore_index": -100},
    ):
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
    data = json.loads((folder / "evaluation-test.json").read_text())
    (folder / "evaluation-test.json").write_text(json.dumps({**data, "ignore_index": -100}))
    run = read_run(folder)
    assert run.best is not None
    assert run.best["step"] == 10**6
    assert "3 classes" in run_page(run)


# -------------------------------------------------------------------------------------------------------- several


@pytest.mark.parametrize(
    ("keys", "miou"),
    [
        ({"input_size": 572, "total_steps": 2000}, 0.1546),
        ({"input_size": 668, "total_steps": 6000}, 0.1681),
        ({"input_size": 732, "total_steps": 2000}, 0.1715),  # the published 724 is trained at 732
        ({"input_size": 724, "total_steps": 6000}, 0.2005),
        ({"input_size": 300, "total_steps": 2000}, None),
        ({"input_size": "full", "total_steps": 2000}, None),
        ({"model": "segformer", "init_from": "nielsr/sidewalk-semantic-demo", "input_size": 512}, 0.1135),
        ({"model": "segformer", "init_from": "nickmuchi/segformer-b4-finetuned-segments-sidewalk"}, 0.5168),
        ({"model": "smp:Unet:resnet34", "input_size": 572}, None),
    ],
)
def test_published_figure_of_the_same_model_and_size(keys: dict[str, Any], miou: float | None) -> None:
    published = published_for(keys)
    assert (published.miou if published else None) == miou


def test_rows_of_the_table(finished: Path, tmp_path: Path) -> None:
    other = fabricate(tmp_path / "other", quality=0.8, is_evaluated=True, data_path="segments/sidewalk-semantic")
    bare = fabricate(tmp_path / "bare", is_evaluated=False, done=100, input_size=300)
    runs = [read_run(folder) for folder in (finished, other, bare)]
    rows = compare(runs, [run.shown_split() for run in runs])
    cells = [dict(zip(Column, row, strict=True)) for row in rows]
    mious = [cell[Column.MIOU].key for cell in cells]
    assert mious == [runs[0].evaluations["test"]["miou"], runs[1].evaluations["test"]["miou"], None]
    assert [cell[Column.MIOU].is_best for cell in cells] == [False, True, False]
    assert [cell[Column.PUBLISHED].text for cell in cells] == ["–", "0.1546", "–"]
    assert cells[2][Column.MIOU].note == "not evaluated"
    assert cells[2][Column.STEPS].note == "of 300"
    assert dict(differing_keys(runs))["input_size"] == [572, 572, 300]
    assert "output_path" not in dict(differing_keys(runs))


def test_a_metric_of_ones_own_is_a_column(finished: Path, tmp_path: Path) -> None:
    fabricate(tmp_path / "other", is_evaluated=True)
    file = tmp_path / "other/evaluation-test.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "metrics": {"kappa": 0.25}}))
    runs = [read_run(finished), read_run(tmp_path / "other")]
    splits = [run.shown_split() for run in runs]
    assert [column.value for column in columns_of(runs, splits)[len(Column) :]] == ["kappa"]
    assert [row[-1].text for row in compare(runs, splits)] == ["–", "0.2500"]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"input_size": 572}, ["388", "3x5", "3x5"]),  # as published
        ({"input_size": 668}, ["484", "3x4", "3x4"]),
        ({"input_size": 732}, ["548", "2x4", "2x4"]),
        ({"input_size": "full"}, ["the image", "1x1", "1x1"]),
        ({"input_size": 556}, ["372", "3x6", "3x6"]),
        ({"input_size": 572, "norm": "group"}, ["388", "3x5", "–"]),  # it has no exact tiles
        ({"input_size": 512, "model": "segformer:nvidia/mit-b0"}, ["512", "3x4", "–"]),  # asks no hub
        ({"input_size": 512, "model": "of-tomorrow"}, ["–", "–", "–"]),
        ({"input_size": 722, "model": "unet:efficientnet_lite0", "norm": "weight"}, ["320", "4x6", "4x6"]),
        ({"input_size": 320, "model": "unet:efficientnet_lite0", "padding": "same"}, ["–", "–", "–"]),  # below its halo
        ({"input_size": 320, "model": "unet:nobodys.encoders:make"}, ["–", "–", "–"]),  # imports nothing
        ({"input_size": 512, "model": "nobodys.networks:make"}, ["–", "–", "–"]),
    ],
    ids=str,
)
def test_output_and_patches_are_those_of_the_published_table(
    tmp_path: Path, keys: dict[str, Any], expected: list[str]
) -> None:
    folder = fabricate(tmp_path / "run", done=0, is_evaluated=False)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, **keys}))
    (row,) = compare([read_run(folder)], [None])
    cells = dict(zip(Column, row, strict=True))
    assert [cells[column].text for column in (Column.OUTPUT, Column.ABUTTING, Column.ALIGNED)] == expected


def test_a_published_checkpoint_stands_beside_the_runs(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fabricate(tmp_path / "segformer-b3", pictures=0)
    name = "segments-tobias/segformer-b3-finetuned-segments-sidewalk"
    record = json.loads((folder / "evaluation-test.json").read_text())
    record |= {"model": name, "data": "segments/sidewalk-semantic", "training_split": "unknown"}
    (folder / "evaluation-test.json").write_text(json.dumps(record))
    for left in ("config.yaml", "metrics.jsonl", "data.json"):  # what evaluate --output_path does not write
        (folder / left).unlink()
    (row,) = compare([read_run(folder)], ["test"])
    cells = dict(zip(Column, row, strict=True))
    assert [cells[column].text for column in (Column.MODEL, Column.INPUT, Column.STEPS)] == [name, "–", "–"]
    assert cells[Column.MIOU].note == "test split; training split unknown"
    assert cells[Column.PUBLISHED].text == "0.4345"  # of the same data
    report([str(finished), str(folder)], ReportOptions(output=str(tmp_path / "page.html")))
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<b>segformer-b3</b> evaluated, trained elsewhere" in html
    assert "All settings are the same." in html
    with pytest.raises(
        ConfigError, match=r"^report: got .*segformer-b3, which holds an evaluation and no run, expected"
    ):
        report([str(folder)], ReportOptions())


def test_what_several_runs_lack_is_said_once_with_all_commands(finished: Path, tmp_path: Path) -> None:
    bare = [fabricate(tmp_path / name, is_evaluated=False) for name in ("first", "second")]
    html = comparison_page([read_run(folder) for folder in (finished, *bare)])
    assert html.count("The run was not evaluated") == 1
    assert "<b>first</b>, <b>second</b>: The run was not evaluated" in html
    commands = "\n".join(f"unet-dist evaluate {folder} --split test" for folder in bare)
    assert f'<code class="command">{commands}</code>' in html


def test_the_command_names_the_run_that_was_not_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [fabricate(tmp_path / name, pictures=0, is_evaluated=name == "first") for name in ("first", "second")]
    report([str(folder) for folder in folders], ReportOptions(output=str(tmp_path / "page.html")))
    text = " ".join(capsys.readouterr().out.split())
    assert text.count("The run was not evaluated") == 1
    assert "second: The run was not evaluated" in text
    assert f"This adds them: unet-dist evaluate {folders[1]} --split test" in text


def test_a_single_validation_is_a_marked_point(tmp_path: Path) -> None:
    """A line of one point shows nothing."""
    one, several = (
        read_run(fabricate(tmp_path / f"{steps}", steps=steps, log_steps=steps // 3, eval_steps=every, pictures=0))
        for steps, every in ((30, 30), (60, 20))
    )
    of_one, of_several = ([line.get_marker() for line in _curves(run).axes[2].lines] for run in (one, several))
    assert of_one == ["o", "o", "o"]
    assert of_several == ["None", "None", "o"]
    assert data_of(comparison_page([one, several]))["charts"]["miou"]["data"][0]["mode"] == "lines+markers"


def test_comparison_holds_every_published_figure_and_the_common_pictures(finished: Path, tmp_path: Path) -> None:
    other = fabricate(tmp_path / "other", quality=0.8, ignore_index=34, norm="weight")
    html = comparison_page([read_run(finished), read_run(other)])
    assert "Published figures" not in html, "they are of other data"
    same = fabricate(tmp_path / "same", is_evaluated=False, data_path="segments/sidewalk-semantic")
    published = comparison_page([read_run(finished), read_run(same)])
    assert all(f"{row.miou:.4f}" in published for row in PUBLISHED)
    assert "<small>as quoted; split and metric not verified</small>" in published
    pictures = data_of(html)["pictures"]
    assert [[p["title"] for p in picture["predictions"]] for picture in pictures] == [["finished", "other"]] * 4
    sources = [{p["source"] for p in picture["predictions"]} for picture in pictures]
    assert all(len(found) == 2 for found in sources)


# ----------------------------------------------------------------------------------------------------- the command


def test_command_writes_the_page_and_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fabricate(tmp_path / "run")
    report([str(folder)], ReportOptions())
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert html.startswith("<!doctype html>")
    names = {"curves.png", "iou.png", "confusion.png", "calibration.png"}
    assert {path.name for path in (folder / "figures").iterdir()} == names
    assert f"Written: {folder / 'report.html'} (" in capsys.readouterr().out


def test_command_compares_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    same = {"pictures": 0, "data_path": "segments/sidewalk-semantic"}
    folders = [fabricate(tmp_path / parent / "run", **same) for parent in ("a", "b")]
    report([str(folder) for folder in folders], ReportOptions(output=str(tmp_path / "page.html")))
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "a/run" in html  # folders of one name are told apart
    assert "b/run" in html
    assert capsys.readouterr().out.count("0.1546") == 2  # the published figure, beside ours

    others = [fabricate(tmp_path / parent / "whole", **same, input_size="full") for parent in ("a", "b")]
    report([str(folder) for folder in others], ReportOptions(output=str(tmp_path / "page.html")))
    assert "published" not in capsys.readouterr().out  # of whole images none is


@pytest.mark.parametrize("width", [80, 100, 200])
def test_no_word_of_the_printed_table_is_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    names = ("input-full", "camvid_weight_norm")
    same = {"pictures": 0, "data_path": "segments/sidewalk-semantic"}
    folders = [fabricate(tmp_path / name, **same, norm="weight") for name in names]
    report([str(folder) for folder in folders], ReportOptions(output=str(tmp_path / "page.html")))
    lines = capsys.readouterr().out.splitlines()[:-1]  # the last says what was written
    assert max(map(len, lines)) <= width
    headings = "run model input, px steps mean IoU published training time peak memory"
    values = "input-full camvid_weight_norm U-Net 64 wide, depth 4, weight norm 572 300 8 min 00 s 3.00 GiB 0.1546"
    words = f"{headings} {values}".split()
    pieces = {*words, "camvid_weight_", "norm"}  # a long name may part at a joint
    printed = {word for line in lines for word in line.split() if not set(word) <= {"─"}}
    assert not {word for word in printed - pieces if not re.fullmatch(r"0\.\d{4}", word)}


def test_command_refuses_nonsense(tmp_path: Path) -> None:
    folder = fabricate(tmp_path / "run", pictures=0)
    with pytest.raises(ConfigError, match=r"^report: got the same run twice"):
        report([str(folder), str(folder)], ReportOptions())
    with pytest.raises(
        ConfigError, match=r"^output: got the folder .*, expected a file\. Set --output .*report\.html\."
    ):
        report([str(folder)], ReportOptions(output=str(tmp_path)))
    with pytest.raises(CheckpointError, match=r"Did you mean .*run\?"):
        report([str(tmp_path)], ReportOptions())
    with pytest.raises(ConfigError, match=r"^pictures: got -1, expected 0 or more\."):
        ReportOptions(pictures=-1)


def test_other_processes_of_a_launcher_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    folder = fabricate(tmp_path / "run", pictures=0)
    report([str(folder)], ReportOptions())
    assert not (folder / "report.html").exists()


def test_settings_mark_what_is_not_the_default(finished: Path) -> None:
    html = run_page(read_run(finished))
    changed = re.findall(r'<tr class="changed"><th scope="row"><code>(\w+)</code>', html)
    stored = yaml.safe_load((finished / "config.yaml").read_text())
    defaults = Config().flat()
    assert changed == [key for key in stored if stored[key] != defaults[key]]


def test_marks_and_words_of_charts_can_be_read() -> None:
    """At 200 dots per inch words of 9 points; in the page marks of 10 px, beside words of 13."""
    scores = [ClassScore("road", 0.5, 0.4, 0.3), ClassScore("car", None, 0.6, None)]
    drawn = _iou(scores, "test")
    for axes in drawn.axes:
        words = [*axes.texts, *axes.get_yticklabels(), *(axes.get_legend().get_texts() if axes.get_legend() else [])]
        assert min(word.get_fontsize() for word in words) >= 9
        assert all(line.get_markersize() >= 7 for line in axes.lines)
    images = _images_chart([{"id": "a", "miou": 0.5}])
    assert images is not None
    page = [*_iou_chart(scores).data, *images.data]
    assert all(trace.marker.size >= 10 for trace in page if trace.type == "scatter")
