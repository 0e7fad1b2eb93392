"""Proves that training on a published encoder keeps the contracts of a run, with the encoder frozen or not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unet_dist.cli import main
from unet_dist.models.encoders import efficientnet_lite
from unet_dist.models.registry import load_model
from unet_dist.runs.metrics_log import read_metrics

pytestmark = [
    pytest.mark.usefixtures("own_process"),
    pytest.mark.skipif(
        efficientnet_lite.find_weights("efficientnet_lite0") is None, reason="extra pretrained is not installed"
    ),
]


def call(*words: object, code: int = 0) -> None:
    with pytest.raises(SystemExit) as leaving:
        main([str(word) for word in words])
    assert leaving.value.code == code


def train(cache: Path, folder: Path, **keys: object) -> dict[str, torch.Tensor]:
    """Train four steps and return the last weights."""
    common: dict[str, object] = {
        "model": "unet:efficientnet_lite0", "depth": 2, "base_channels": 4, "norm": "weight", "input_size": 60,
        "synthetic_images": 6, "synthetic_size": "48x80", "batch_size": 2, "total_steps": 4, "eval_steps": 2, "log_steps": 1,
        "learning_rate": 1e-2, "dtype": "float64", "mixed_precision": "no", "trackers": "[]",
    }  # fmt: skip
    keys = {**common, "cache_path": cache, "output_path": folder, **keys}
    call("train", *(f"--{key}={value}" for key, value in keys.items()))
    return load_file(folder / "last/model.safetensors")


@pytest.mark.parametrize("factor", [0.0, 0.3])
@pytest.mark.slow
def test_a_run_does_not_depend_on_its_cut_nor_on_a_stop(tmp_path: Path, factor: float) -> None:
    cache = tmp_path / "cache"
    whole = train(cache, tmp_path / "whole", encoder_learning_rate_factor=factor)
    cut = train(cache, tmp_path / "cut", encoder_learning_rate_factor=factor, micro_batch_size=1, tile_size=38)
    losses = [
        [record["loss"] for record in read_metrics(tmp_path / name / "metrics.jsonl") if record["split"] == "train"]
        for name in ("whole", "cut")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-8)
    assert losses[0][0] != pytest.approx(losses[0][-1], rel=1e-3)
    assert all(torch.allclose(cut[name], tensor, rtol=1e-6, atol=1e-8) for name, tensor in whole.items())

    begun = tmp_path / "whole/checkpoints/step-00000002"
    resumed = train(cache, tmp_path / "resumed", encoder_learning_rate_factor=factor, resume=begun)
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())

    published = efficientnet_lite.read_weights("efficientnet_lite0")
    is_published = torch.equal(whole["backbone.stem.weight"].float(), published["_conv_stem.weight"])
    assert is_published == (factor == 0)
    assert torch.equal(whole["backbone.stem.variance"].float(), published["_bn0.running_var"]), "frozen statistics"

    model = load_model(tmp_path / "whole/best")
    assert (model.mean, model.std) == ([127.0] * 3, [128.0] * 3), "the encoder's own, not the data's"
    call("export", tmp_path / "whole", "--format", "huggingface", "--license", "mit", "--output", tmp_path / "out")
    assert "EfficientNet-Lite0, ImageNet" in (tmp_path / "out/README.md").read_text()
    assert "(Apache-2.0)" in (tmp_path / "out/README.md").read_text()


def test_keys_of_an_encoder_are_refused_where_there_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("train", "--encoder_frozen_steps", 5, "--output_path", tmp_path / "run", code=2)
    assert "encoder_frozen_steps: got 5, which has no effect on the model unet" in " ".join(
        capsys.readouterr().err.split()
    )
