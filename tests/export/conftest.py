"""A small run's folder, as training and evaluation leave it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from unet_dist.config.sections import Config
from unet_dist.models.unet import UNet

NAMES = ["road", "sky", "tree | bush"]

TINY: dict[str, Any] = {
    "depths": [1, 1],
    "hidden_sizes": [8, 16],
    "num_attention_heads": [1, 2],
    "decoder_hidden_size": 16,
    "patch_sizes": [7, 3],
    "strides": [4, 2],
    "sr_ratios": [8, 1],
    "mlp_ratios": [2, 2],
}
"""What shapes a SegFormer of two stages."""


def make_model(**options: Any) -> UNet:
    """A network with random weights whose biases and normalisation are not trivial."""
    torch.manual_seed(0)
    model = UNet(**{"num_classes": 3, "base_channels": 4, "depth": 2, "class_names": NAMES, **options}).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(("bias", "running_mean")):
                tensor.normal_(0, 0.1)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
    return model


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """Holds config.yaml, best/ and the evaluations of two splits, of the user's own data."""
    return make_run(tmp_path, str(tmp_path / "secret place" / "my-streets"))


def make_run(tmp_path: Path, data_path: str) -> Path:
    """Write the folder of a run."""
    folder = tmp_path / "streets"
    config = Config.from_flat(
        {
            "data_path": data_path,
            "base_channels": 4,
            "depth": 2,
            "norm": "weight",
            "input_size": 80,
            "output_path": str(folder),
        }
    )
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config.flat()))
    make_model(norm="weight", mean=[100.0, 110.0, 120.0], std=[50.0, 60.0, 70.0]).save_pretrained(folder / "best")
    for split, miou in (("test", 0.4321), ("validation", 0.5)):
        record = {
            "miou": miou,
            "pixel_accuracy": 0.75,
            "iou": {"road": 0.25, "sky": None, "tree | bush": 0.125},
            "confusion": [],
            "model": str(folder),
            "data": data_path,
            "split": split,
            "images": 7,
            "tile_size": 80,
        }
        (folder / f"evaluation-{split}.json").write_text(json.dumps(record))
    return folder
