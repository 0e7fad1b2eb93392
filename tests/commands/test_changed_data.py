"""Proves that a resumed run notices other data than it began with, and only other data: not another place of the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.pictures import png, random_pair, write_folder
from unet_dist.cli import main
from unet_dist.runs.checkpoint import list_checkpoints, state_digest

TINY = {
    "depth": 1, "base_channels": 2, "input_size": 40, "batch_size": 2, "total_steps": 2, "eval_steps": 1,
    "trackers": "[]", "mixed_precision": "no",
}  # fmt: skip


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/ and a run that stands at step 1 of 2; tests copy it."""
    folder = tmp_path_factory.mktemp("begun")
    write_folder(folder / "data", {"train": 3, "validation": 1, "test": 1}, height=30, width=40)
    assert start(folder)[0] == 0
    shutil.rmtree(folder / "run/checkpoints/step-00000002")
    return folder


def copied(begun: Path, place: Path) -> Path:
    """A copy that began where it is now."""
    shutil.copytree(begun, place)
    edit(place, config={"data_path": str(place / "data")})
    return place


@pytest.fixture
def place(tmp_path: Path, begun: Path) -> Path:
    return copied(begun, tmp_path / "place")


def start(place: Path, *words: str, data: str = "data") -> tuple[int, bytes]:
    """Train in a place; the exit code and the bytes of the last model."""
    keys = {**TINY, "data_path": place / data, "cache_path": place / "cache", "output_path": place / "run"}
    shutil.rmtree(place / "run/last", ignore_errors=True)
    with pytest.raises(SystemExit) as leaving:
        main(["train", *(f"--{key}={value}" for key, value in keys.items()), *words])
    assert isinstance(leaving.value.code, int)
    model = place / "run/last/model.safetensors"
    return leaving.value.code, model.read_bytes() if model.exists() else b""


def edit(place: Path, *, config: dict[str, str] | None = None, without_data: bool = False) -> None:
    """Change what the newest checkpoint remembers, with a digest that fits."""
    file = list_checkpoints(place / "run/checkpoints")[-1] / "state.json"
    state = json.loads(file.read_text(encoding="utf-8"))
    state["config"] |= config or {}
    if without_data:
        del state["data"]
    state["sha256"]["state.json"] = state_digest(state)
    file.write_text(json.dumps(state), encoding="utf-8")


def mirror(path: Path) -> None:
    with Image.open(path) as picture:
        pixels = np.asarray(picture)
    path.write_bytes(png(pixels[:, ::-1]))


def test_mirrored_mask_is_refused_and_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mirror(place / "data/masks/train/sample001.png")
    before = {path: path.read_bytes() for path in (place / "run").rglob("*.safetensors")}
    assert start(place) == (2, b"")
    sentence = capsys.readouterr().err
    assert f"{place}/run holds a run at step 1 with other data: labels of train: SHA-256 " in sentence
    assert sentence.endswith(
        "To resume it as it was, put its data back. To resume it with the data there now, set --allow_config_change true. "
        "To start another run, set another --output_path.\n"
    )
    assert "pixels" not in sentence
    assert {path: path.read_bytes() for path in before if "last" not in path.parts} == {
        path: content for path, content in before.items() if "last" not in path.parts
    }
    code, model = start(place, "--allow_config_change=true")
    assert (code, bool(model)) == (0, True)
    assert "Resuming with changed data: labels of train: SHA-256 " in capsys.readouterr().out


def test_added_image_is_counted(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind, pixels in zip(("images", "masks"), random_pair(77, height=30, width=40), strict=True):
        (place / f"data/{kind}/validation/sample001.png").write_bytes(png(pixels))
    assert start(place, "--learning_rate=0.1")[0] == 2
    sentence = capsys.readouterr().err
    assert (
        " with other settings and data: learning_rate: 0.0005 -> 0.1; images of validation: 1 -> 2. To resume"
        in sentence
    )


def test_moved_data_and_other_test_images_end_like_before(
    begun: Path, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run resumes without a question, and ends with the bytes it would have had."""
    expected = start(copied(begun, tmp_path / "undisturbed"))
    mirror(place / "data/masks/test/sample000.png")
    (place / "data").rename(place / "elsewhere")
    capsys.readouterr()
    assert start(place, data="elsewhere") == expected
    said = capsys.readouterr().out
    assert (
        f"Resuming with the same data, read from elsewhere: data_path: '{place}/data' -> '{place}/elsewhere'." in said
    )


def test_checkpoint_of_an_older_release_knows_no_data_and_resumes(place: Path) -> None:
    edit(place, without_data=True)
    mirror(place / "data/masks/train/sample001.png")
    assert start(place)[0] == 0
