"""Proves that an ONNX file computes what the network does, at sizes and batches it was not exported at, and says how to use it;
that a file which does not is refused; and that predict takes it.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.export.conftest import NAMES, TINY, make_model
from unet_dist.assembly.inference import choose_tiles, reason_of
from unet_dist.assembly.opening import describe_opened
from unet_dist.cli import run
from unet_dist.errors import CheckpointError, ConfigError, ExportError, LocalityError
from unet_dist.imaging.pixels import Pixels
from unet_dist.imaging.reader import ArrayReader, read_window
from unet_dist.models.arguments import scale_logits
from unet_dist.models.contract import Network
from unet_dist.models.ensemble import Ensemble
from unet_dist.models.registry import load_model
from unet_dist.models.segformer import SegFormer
from unet_dist.prediction.image import predict_image
from unet_dist.scenes.synthetic import SyntheticScenes
from unet_dist.tiling.windows import normalise, window_logits

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed: pip install 'unet_dist[onnx]'")
ort = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed: pip install 'unet_dist[onnx]'")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed: pip install 'unet_dist[onnx]'")

from unet_dist.export.check import Agreement, compare  # noqa: E402
from unet_dist.export.graph import Form, write_onnx  # noqa: E402

SCENE = SyntheticScenes(1, 100, 170, seed=5).render(0)[0]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A network and its file."""
    model = make_model(norm="weight", mean=[100.0, 110.0, 120.0], std=[50.0, 60.0, 70.0], ignore_index=1)
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    write_onnx(path, model, {"licence": "mit"})
    return model, path


def session(path: Path) -> Any:
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("count", "height", "width"), [(1, 44, 44), (3, 60, 100), (2, 148, 48)])
def test_any_valid_size_and_number(exported: tuple[Any, Path], count: int, height: int, width: int) -> None:
    model, path = exported
    reader = ArrayReader(SCENE)
    pixels = np.stack([read_window(reader, 3 * n, n - 10, height, width) for n in range(count)])  # (N, H, W, C)
    with torch.no_grad():
        expected = model(normalise(torch.from_numpy(pixels), model.mean, model.std, torch.float32)).numpy()
    (logits,) = session(path).run(["logits"], {"pixels": pixels})
    assert logits.shape == expected.shape == (count, 3, height - 40, width - 40)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


def test_opencv_reads_a_file_of_free_sides(exported: tuple[Any, Path]) -> None:
    cv2 = pytest.importorskip("cv2")
    _, path = exported
    assert {node.op_type for node in onnx.load(path).graph.node}.isdisjoint({"Shape", "ReduceMean"})  # constants
    classic = {"engine": cv2.dnn.ENGINE_CLASSIC} if hasattr(cv2.dnn, "ENGINE_CLASSIC") else {}  # OpenCV 4 has no other
    network = cv2.dnn.readNetFromONNX(str(path), **classic)
    for height, width in ((60, 100), (76, 64)):
        pixels = SCENE[None, :height, :width]
        network.setInput(pixels.astype(np.float32))
        (logits,) = session(path).run(["logits"], {"pixels": pixels})
        np.testing.assert_allclose(network.forward(), logits, atol=1e-3)


def test_a_size_between_is_refused_by_the_runtime(exported: tuple[Any, Path]) -> None:
    with pytest.raises(Exception, match=r"(?s)Concat|shape|dimension"):
        session(exported[1]).run(None, {"pixels": np.zeros((1, 46, 47, 3), np.uint8)})


def test_the_file_says_how_to_use_it(exported: tuple[Any, Path]) -> None:
    said = {prop.key: prop.value for prop in onnx.load(exported[1]).metadata_props}
    assert json.loads(said["class_names"]) == NAMES
    assert json.loads(said["mean"]) == [100.0, 110.0, 120.0]
    assert (said["ignore_index"], said["halo"], said["stride"], said["margin"]) == ("1", "20", "4", "20")
    assert said["sides"] == "H and W: 44 or more, remainder 0 by 4"
    assert said["licence"] == "mit"
    (pixels,) = onnx.load(exported[1]).graph.input
    shape = [dim.dim_param or dim.dim_value for dim in pixels.type.tensor_type.shape.dim]
    assert shape[0] == "N"
    assert shape[3] == 3
    assert all(isinstance(side, str) for side in shape[1:3])


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"padding": "same", "upsampling": "bilinear", "norm": "group"},
        {"norm": "batch", "in_channels": 1, "depth": 1, "dropout": 0.5},
        {"in_channels": 5, "depth": 3, "base_channels": 2},
        {"stem_stride": 2, "depth": 1, "norm": "weight"},
    ],
    ids=lambda options: " ".join(f"{key}={value}" for key, value in options.items()),
)
def test_other_architectures(tmp_path: Path, options: dict[str, Any]) -> None:
    model = make_model(**options)
    write_onnx(tmp_path / "model.onnx", model, {})
    readers = (
        ArrayReader(np.random.default_rng(n).integers(0, 256, (90 + n, 131, model.in_channels), np.uint8))
        for n in range(4)
    )
    found = compare(model, session(tmp_path / "model.onnx"), readers, lambda: None)
    found.require()
    assert found.images == 4
    assert found.pixels >= sum((90 + n) * 131 for n in range(4))


def test_another_network_is_found_out(exported: tuple[Any, Path]) -> None:
    model = make_model(norm="weight", mean=[100.0, 110.0, 121.0], std=[50.0, 60.0, 70.0], ignore_index=1)
    found = compare(model, session(exported[1]), iter([ArrayReader(SCENE)]), lambda: None)
    assert found.difference > 1e-3
    with pytest.raises(ExportError, match=r"differs from the original: \d+ of \d+ labels, logits by up to"):
        found.require()


@pytest.mark.slow
def test_a_padded_file_takes_any_size_and_returns_it(tmp_path: Path) -> None:
    model = make_model(norm="weight", mean=[100.0, 110.0, 120.0], std=[50.0, 60.0, 70.0])
    path = tmp_path / "model.onnx"
    write_onnx(path, model, {}, Form(is_padded=True))
    opened = session(path)
    for height, width in ((50, 70), (61, 83), (7, 170), (100, 2)):
        image = SCENE[:height, :width]
        (logits,) = opened.run(None, {"pixels": image[None]})
        assert logits.shape == (1, 3, height, width)
        np.testing.assert_array_equal(logits[0].argmax(axis=0), predict_image(model, image))
    compare(model, opened, iter([ArrayReader(SCENE), ArrayReader(SCENE)]), lambda: None, Form(is_padded=True)).require()
    assert "borders of its own" in load_model(path).locality_obstacle


@pytest.mark.parametrize(("form", "size"), [(Form((60, 84)), (20, 44)), (Form((61, 83), True), (61, 83))])
def test_fixed_sides_load_where_shapes_must_be(tmp_path: Path, form: Form, size: tuple[int, int]) -> None:
    cv2 = pytest.importorskip("cv2")
    model, path = make_model(norm="weight"), tmp_path / "model.onnx"
    write_onnx(path, model, {}, form)
    assert form.sides is not None
    (pixels,) = onnx.load(path).graph.input
    assert [dim.dim_value for dim in pixels.type.tensor_type.shape.dim] == [1, *form.sides, 3]
    assert session(path).run(None, {"pixels": SCENE[None, : form.sides[0], : form.sides[1]]})[0].shape == (1, 3, *size)
    compare(model, session(path), iter([ArrayReader(SCENE)]), lambda: None, form).require()
    cv2.dnn.readNetFromONNX(str(path))
    with pytest.raises(CheckpointError, match=r"takes pictures of \d+x\d+ only and is for other runtimes"):
        load_model(path)


def test_pixels_of_16_bits_are_given_as_floats_and_clipped(tmp_path: Path) -> None:
    model = make_model(mean=[3000.0, 3100.0, 3200.0], std=[900.0, 800.0, 700.0])
    model.pixels = Pixels("uint16", limits=((500.0, 40_000.0),) * 3)
    path, form, deep = tmp_path / "model.onnx", Form((44, 48)), SCENE.astype(np.uint16) * 257
    write_onnx(path, model, {}, form)
    compare(model, session(path), iter([ArrayReader(deep)]), lambda: None, form).require()
    window = deep[None, :44, :48].astype(np.float32)
    clipped = session(path).run(None, {"pixels": window.clip(500, 40_000)})[0]
    assert window.max() > 40_000
    np.testing.assert_array_equal(session(path).run(None, {"pixels": window})[0], clipped)


def test_sides_that_the_network_does_not_take_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^sides: got 61, .* Choose 60 or 64, or add --padded true\."):
        write_onnx(tmp_path / "model.onnx", make_model(), {}, Form((60, 61)))


@pytest.mark.parametrize(
    "found",
    [
        Agreement(pixels=9, difference=1e-6, differing=2, ties=1),
        Agreement(pixels=9, difference=2e-3),
        Agreement(pixels=9, difference=float("nan")),
    ],
)
def test_what_is_no_agreement(found: Agreement) -> None:
    with pytest.raises(ExportError):
        found.require()


def test_ties_apart() -> None:
    Agreement(pixels=9, difference=1e-6, differing=2, ties=2).require()


def test_where_pixels_depend_on_the_whole_window_more_is_allowed_and_said() -> None:
    found = Agreement(pixels=9, difference=2e-3, differing=2, ties=2, is_coupled=True)
    found.require()
    assert "logits within 2.0e-03 (1e-02 is allowed where a pixel depends on its whole window)" in str(found)
    with pytest.raises(ExportError, match="and 1e-02"):
        Agreement(pixels=9, difference=2e-2, is_coupled=True).require()


def test_exported_by_the_command_and_used_by_others(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its data are out of reach, so scenes stand in; predict takes the file and writes the labels of the run."""
    run(["export", str(run_folder), "--format", "onnx", "--check_images", "3"])
    out = capsys.readouterr().out
    assert "The run's data cannot be had, so street scenes stand in for them" in out
    assert "Compared with torch on procedural street scenes: 3 images" in out
    told = (
        "Writing the network as a graph",
        "Comparing it with torch on 3 images of",
        "image compared 3/3\n",
        "Compared",
    )
    places = [out.index(words) for words in told]
    assert places == sorted(places), "each long part is announced"
    assert "every label equal" in out
    assert "opset 18" in out
    file = run_folder / "model.onnx"
    labels = predict_image(load_model(file), SCENE, 80)
    assert np.array_equal(labels, predict_image(load_model(run_folder / "best"), SCENE, 80))
    assert np.array_equal(labels, predict_image(load_model(file), SCENE, 44))
    assert len(np.unique(labels)) > 1


def test_a_file_is_not_said_to_compute_in_bf16(exported: tuple[Any, Path]) -> None:
    model, path = exported

    def lines(network: Network) -> list[str]:
        return describe_opened(None, network, average=None, wish="auto", precision="bf16")

    assert len(lines(model)) == 1
    assert lines(model)[0].startswith("Computed in bf16")
    assert lines(load_model(path)) == lines(Ensemble([load_model(path), load_model(path)])) == []
    assert len(lines(Ensemble([model, load_model(path)]))) == 1, "one of the members does"


@pytest.mark.slow
def test_a_segformer_of_any_size_is_blended(tmp_path: Path) -> None:
    """Chosen by the file's own metadata, as for every network without a halo."""
    pytest.importorskip(
        "transformers", reason="the extra segformer is not installed: pip install 'unet_dist[segformer]'"
    )
    torch.manual_seed(0)
    model = SegFormer(num_classes=5, architecture=TINY, mean=[100.0] * 3).eval()
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() > 1:
                weights.normal_(0, 0.3)  # as drawn, every logit is about 0
    model.save_pretrained(tmp_path / "best")
    write_onnx(tmp_path / "model.onnx", model, {})
    exported = load_model(tmp_path / "model.onnx")
    found = compare(model, session(tmp_path / "model.onnx"), (ArrayReader(SCENE[n:]) for n in range(4)), lambda: None)
    found.require()
    assert found.difference > 0

    tiles = choose_tiles(exported, window_batch=1, say=print)
    assert tiles.name == "blended tiles"
    assert reason_of(tiles) == f"No exact tiles ({model.locality_obstacle}): predicted by blended tiles."
    with pytest.raises(LocalityError, match="Or add --blend true"):
        choose_tiles(exported, window_batch=1, must_be_asked=True, say=print)
    assert exported.locality_obstacle == model.locality_obstacle
    Image.fromarray(SCENE).save(tmp_path / "scene.png")
    labels = {}
    for name in ("best", "model.onnx"):
        out = tmp_path / f"{name}-out"
        run(
            [
                "predict",
                str(tmp_path / name),
                str(tmp_path / "scene.png"),
                "--output",
                str(out),
                "--blend",
                "--mixed_precision",
                "no",
            ]
        )
        labels[name] = np.asarray(Image.open(out / "scene.png"))
    assert len(np.unique(labels["best"])) > 1
    assert (labels["best"] == labels["model.onnx"]).mean() > 0.999


@pytest.mark.slow
def test_a_scaled_segformer_interpolates_its_logits_once(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the extra segformer is not installed")
    torch.manual_seed(0)
    model = SegFormer(num_classes=5, architecture=TINY, mean=[100.0] * 3, resize_to=[64, 96]).eval()
    write_onnx(tmp_path / "model.onnx", model, {})
    exported = load_model(tmp_path / "model.onnx")
    pixels = torch.from_numpy(SCENE[:64, :96].copy())[None]
    ours = window_logits(model, pixels, halo=0, scaled_to=(100, 150))
    theirs = window_logits(exported, pixels, halo=0, scaled_to=(100, 150))
    twice = scale_logits(window_logits(model, pixels, halo=0), (100, 150))
    assert (ours - theirs).abs().max() < 0.02 * (ours - twice).abs().max()


def test_a_failed_check_leaves_nothing(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unet_dist.export.check.MAX_DIFFERENCE", 0.0)
    before = sorted(run_folder.rglob("*"))
    with pytest.raises(ExportError, match=r"Nothing was written\."):
        run(["export", str(run_folder), "--format", "onnx", "--check_images", "1"])
    assert sorted(run_folder.rglob("*")) == before


def test_a_file_in_a_folder_that_is_no_utf_8_is_opened(exported: tuple[Any, Path], tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"h\xe4user")
    folder.mkdir()
    copy = Path(shutil.copy(exported[1], folder))
    assert load_model(copy).num_classes == load_model(exported[1]).num_classes


def test_foreign_and_damaged_files_are_refused(exported: tuple[Any, Path], tmp_path: Path) -> None:
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(exported[1].read_bytes()[:500])
    with pytest.raises(CheckpointError, match=r"cut\.onnx is not a whole ONNX file: "):
        load_model(cut)
    foreign = onnx.load(exported[1])
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(CheckpointError, match=r"does not say what unet_dist writes"):
        load_model(tmp_path / "foreign.onnx")
    shutil.copy(exported[1], tmp_path / "model.onnx")
    with pytest.raises(ConfigError, match=r"is an export already"):
        run(["export", str(tmp_path / "model.onnx"), "--format", "onnx", "--output", str(tmp_path / "b.onnx")])
