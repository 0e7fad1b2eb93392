"""Proves the answers to a config: each key is judged, and a refusal says what came, what was expected and what to change."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from unet_dist.command_line.command import find_command
from unet_dist.command_line.parsing import parse
from unet_dist.config import model_section
from unet_dist.config import sections as config_module
from unet_dist.config.batch_cut import BatchCut, cut_batch
from unet_dist.config.quantities import parse_shape
from unet_dist.config.rules import hints_of
from unet_dist.config.sections import FREE_KEYS, KEYS, SECTIONS, Config, ScheduleConfig
from unet_dist.config.values import read
from unet_dist.errors import ConfigError

# For each key the values that must be refused.
REFUSED: dict[str, list[Any]] = {
    "value_range": ["12", "5,5", "9,1"],
    "metrics": ["mean_dise"],
    "normalisation": ["zscore", "range", "range 5,1", "none 0,1"],
    "thresholds": [0.0, 1.0, [0.5, 2.0], []],
    "bands": ["", "0,1", "2,2", "red,red", "1,,2", "-1", "1.5,2"],
    "select": ["", "z", "z=0", "z=3-2", "z=1,z=2", "3"],
    "nodata": [float("nan"), float("inf")],
    "model": [""],  # which names there are the registry knows
    "in_channels": [0],
    "num_classes": [1, 65536],
    "base_channels": [0],
    "depth": [0, 9],
    "norm": ["layer"],
    "padding": ["reflect"],
    "upsampling": ["nearest"],
    "blocks": ["dense"],
    "bottleneck_dilations": [[0], [1.5], 2],
    "stem_stride": [0, 3, 32],
    "head": ["nearest"],
    "dropout": [-0.1, 1.0, float("nan")],
    "image_names": ["mask", "*_*"],
    "mask_names": ["mask", "*_*"],
    "max_pixels": [0],
    "decode_memory": ["", "lots", "-1GiB"],
    "decode_seconds": [0.0, float("inf")],
    "ignore_index": [-1, 65536],
    "group_by": ["(", ""],
    "folds": [1],
    "fold": [-1],
    "synthetic_images": [2],
    "synthetic_size": ["1080", "0x5", "8x-8", "8x8x8", "8 by 8"],
    "class_balance": [-0.1, 1.0],
    "cutmix": [-0.1, 1.0],
    "classmix": [-0.1, 1.0],
    "num_workers": [-1],
    "input_size": [0, "whole"],
    "batch_size": [0],
    "micro_batch_size": [0],
    "gradient_accumulation_steps": [0],
    "total_steps": [0],
    "eval_steps": [0],
    "learning_rate": [0.0, -1e-3, float("inf"), float("nan")],
    "encoder_learning_rate_factor": [-0.1, float("inf"), float("nan")],
    "encoder_frozen_steps": [-1],
    "schedule": ["step"],
    "warmup_fraction": [-0.1, 1.0],
    "optimizer": ["sgd"],
    "weight_decay": [-0.1, float("inf"), float("nan")],
    "context_px": [-1],
    "max_grad_norm": [0.0, float("inf")],
    "ema_decay": [0.0, 1.0, float("nan")],
    "label_smoothing": [-0.1, 1.0, float("nan")],
    "focal_gamma": [-1.0, float("inf"), float("nan")],
    "deep_supervision": [-1, 8, 0.5],
    "border_class": [-1, 65535],
    "border_weight": [0.0, float("inf")],
    "border_sigma_px": [0.0, float("inf")],
    "class_weights": ["invers", [-1.0, 1.0], [0.0, 0.0], [float("nan"), 1.0], [float("inf"), 1.0]],
    "seed": [-1, 2**63],
    "early_stopping_evals": [0],
    "time_limit_min": [0.0, float("inf")],
    "checkpoint_steps": [0],
    "keep_checkpoints": [0],
    "log_steps": [0],
    "mixed_precision": ["fp8"],
    "dtype": ["float16"],
    "memory_format": ["channels_first"],
    "tile_size": [0],
    "window_batch": [0],
    "expected_processes": [0],
    "extend_schedule": ["stretch"],
    "collective_timeout_s": [0.0, float("inf")],
}
# Words, switches and what only another module can judge.
ANYTHING_GOES = {
    *(
        "checkpoint_activations",
        "init_from",
        "split_sample",
        "data_path",
        "cache_path",
        "label_map",
        "horizontal_flip",
        "augmentation",
        "loss",
    ),
    *("output_path", "debug", "resume", "allow_config_change", "trackers", "tf32", "deterministic", "compile"),
    "cudnn_benchmark",
    *("multi_label", "revision", "image_column", "label_column", "images_folder", "masks_folder"),
}


def test_every_key_is_judged_here() -> None:
    assert set(REFUSED) | ANYTHING_GOES == set(KEYS)
    assert not set(REFUSED) & ANYTHING_GOES


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in REFUSED.items() for value in values])
def test_refusal_says_got_expected_and_the_key(key: str, value: Any) -> None:
    with pytest.raises(ConfigError) as refusal:
        Config.from_flat({key: value})
    sentence = str(refusal.value)
    assert sentence.startswith(f"{key}: got {value!r}, expected ")
    assert sentence.endswith(f" Change {key} in the config or --{key}.")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"learning_rate": -1.0},
            "learning_rate: got -1.0, expected a finite number above 0. Change learning_rate in the config or --learning_rate.",
        ),
        (
            {"norm": "layer"},
            "norm: got 'layer', expected one of none, weight, batch, group. Change norm in the config or --norm.",
        ),
        (
            {"synthetic_size": "8"},
            "synthetic_size: got '8', expected height x width in px such as 1080x1920. Change synthetic_size in the config or "
            "--synthetic_size.",
        ),
        (
            {"data_path": "me/streets", "synthetic_images": 7},
            "synthetic_images: got 7, which has no effect as data_path is 'me/streets'. Remove synthetic_images, or set "
            "--data_path synthetic.",
        ),
        (
            {"dtype": "float64", "mixed_precision": "bf16"},
            "dtype: got float64 together with mixed_precision bf16, expected no mixed precision. Set --mixed_precision no.",
        ),
        (
            {"compile": True, "input_size": "full"},
            "compile: got true together with input_size full, expected crops of one size: each shape is compiled anew. Remove "
            "--compile, or set --input_size.",
        ),
        (
            {"tf32": True, "mixed_precision": "bf16"},
            "tf32: got true, which has no effect as mixed_precision is bf16. Remove tf32, or set --mixed_precision no.",
        ),
        (
            {"norm": "batch", "batch_size": 1},
            "norm: got batch at batch_size 1, expected at least 2 crops to normalise over. Set --norm weight.",
        ),
    ],
)
def test_message(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        Config.from_flat(values)
    assert str(refusal.value) == sentence


def test_unknown_key_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"^Unknown key 'learning_rat'\. Did you mean \"learning_rate\"\? Valid: "):
        Config.from_flat({"learning_rat": 1e-3})


def test_reference_task_is_the_default() -> None:
    defaults = Config().flat()
    reference = {
        "batch_size": 16,
        "learning_rate": 5e-4,
        "total_steps": 6000,
        "eval_steps": 100,
        "schedule": "onecycle",
    }
    assert {key: defaults[key] for key in reference} == reference
    assert Config().model.norm == "none"


def test_every_key_has_its_help_as_sentences() -> None:
    trees = [ast.parse(inspect.getsource(module)) for module in (config_module, model_section)]
    said = {}
    for section in (node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)):
        for field, text in zip(section.body, section.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                assert isinstance(field.target, ast.Name)
                said[field.target.id] = str(text.value.value)
    assert set(KEYS) <= set(said)
    assert not [key for key in KEYS if not re.fullmatch(r"\S.*\.", said[key], re.DOTALL)]


def test_keys_are_flat_and_free_ones_among_them() -> None:
    fields = [field.name for section in SECTIONS.values() for field in dataclasses.fields(section)]
    assert len(fields) == len(set(fields)), "a name occurs in one section only"
    assert list(KEYS) == fields
    assert set(KEYS) >= FREE_KEYS
    # What the run computes is never free.
    assert not FREE_KEYS & {
        "seed",
        "batch_size",
        "learning_rate",
        "total_steps",
        "eval_steps",
        "data_path",
        "dtype",
        "norm",
    }


def test_config_survives_yaml_and_json() -> None:
    """config.yaml is read back by evaluate, and a checkpoint's config is compared with a new one key by key."""
    config = Config.from_flat(
        {
            "augmentation": [{"name": "ColorJitter", "brightness": [0.8, 1.2], "p": 0.5}],
            "label_map": {7: 1, 8: 0},  # as YAML reads them
            "class_weights": [0.5, 1.5],
            "learning_rate": 1e-5,
            "trackers": [],
            "max_grad_norm": 1.0,
        }
    )
    assert Config.from_flat(yaml.safe_load(yaml.safe_dump(config.flat(), sort_keys=False))) == config
    assert json.loads(json.dumps(config.flat())) == config.flat()


def test_a_mapping_is_read_without_blanks_after_its_colons() -> None:
    """YAML reads none; on the command line the meaning is clear, and in a file the refusal names the blank."""
    kind, meaning = dict[str, int] | None, "A map."
    for word in ("{0:0,255:1}", "{0: 0,255:1}", "{0: 0, 255: 1}"):
        assert read("label_map", kind, word, meaning, is_word=True) == {0: 0, 255: 1}
    assert read("label_map", kind, '{"0,0,255":1}', meaning, is_word=True) == {"0,0,255": 1}
    with pytest.raises(ConfigError, match=r"Write a blank after each colon: \{0: 0, 255: 1\}\. \(A map\.\)$"):
        read("label_map", kind, yaml.safe_load("{0:0,255:1}"), meaning, is_word=False)


def test_replace_checks_again_and_leaves_the_original() -> None:
    config = Config()
    assert config.replace(seed=5).flat() == {**config.flat(), "seed": 5}
    assert config.schedule.seed == 0
    with pytest.raises(ConfigError, match="seed"):
        config.replace(seed=-5)


@given(st.integers(1, 10**5), st.integers(1, 10**5))
def test_shape_reads_height_by_width(height: int, width: int) -> None:
    assert parse_shape(f"{height}x{width}") == parse_shape(f"{height}X{width}") == (height, width)


# ------------------------------------------------------------------------------------------------- cutting a batch


@given(st.integers(1, 16), st.integers(1, 8), st.integers(1, 8), st.sampled_from(["none", "micro", "accum", "both"]))
def test_cut_covers_the_batch(world_size: int, accum: int, micro: int, given_keys: str) -> None:
    """Whatever micro-batch and accumulation are given, their product with the processes is the batch."""
    schedule = ScheduleConfig(
        batch_size=world_size * accum * micro,
        micro_batch_size=micro if given_keys in ("micro", "both") else None,
        gradient_accumulation_steps=accum if given_keys in ("accum", "both") else None,
    )
    expected = (1, accum * micro) if given_keys == "none" else (accum, micro)
    assert cut_batch(schedule, world_size) == BatchCut(world_size, *expected)


@pytest.mark.parametrize(
    ("schedule", "world_size", "sentence"),
    [
        (
            {"batch_size": 16},
            3,
            "batch_size: got 16 for 3 processes, expected a multiple of 3: 15 or 18. A batch of 16 divides over 1, 2, 4, 8, 16 "
            "processes. Or set --split_sample true: then processes share tiles (--tile_size), not crops.",
        ),
        (
            {"batch_size": 2},
            4,
            "batch_size: got 2 for 4 processes, expected a multiple of 4: 4. A batch of 2 divides over 1, 2 processes. Or set "
            "--split_sample true: then processes share tiles (--tile_size), not crops.",
        ),
        (
            {"batch_size": 12, "micro_batch_size": 4},
            2,
            "micro_batch_size: got 4, expected a divisor of 12 / 2 = 6: 1, 2, 3, 6. Change micro_batch_size in the config or "
            "--micro_batch_size.",
        ),
        (
            {"batch_size": 12, "gradient_accumulation_steps": 5},
            1,
            "gradient_accumulation_steps: got 5, expected a divisor of 12 / 1 = 12: 1, 2, 3, 4, 6, 12. Change "
            "gradient_accumulation_steps in the config or --gradient_accumulation_steps.",
        ),
        (
            {"batch_size": 12, "micro_batch_size": 2, "gradient_accumulation_steps": 2},
            1,
            "micro_batch_size x gradient_accumulation_steps: got 2 x 2, expected 12 / 1 = 12 (batch_size over processes). Remove "
            "one of them, or choose from 1, 2, 3, 4, 6, 12.",
        ),
    ],
)
def test_batch_that_does_not_divide_lists_what_does(schedule: dict[str, int], world_size: int, sentence: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        cut_batch(ScheduleConfig(**schedule), world_size)
    assert str(refusal.value) == sentence


@pytest.mark.parametrize(
    ("schedule", "has_tiles", "splits"),
    [
        ({"batch_size": 2, "split_sample": True}, False, True),
        ({"batch_size": 2}, True, True),
        ({"batch_size": 3}, True, False),
        ({"batch_size": 3, "split_sample": True, "micro_batch_size": 4}, True, True),
    ],
)
def test_samples_are_split_when_asked_and_when_crops_are_too_few(
    schedule: dict[str, int], has_tiles: bool, splits: bool
) -> None:
    cut = cut_batch(ScheduleConfig(**schedule), 3, has_tiles=has_tiles)
    assert cut == BatchCut(3, 1, schedule.get("micro_batch_size", 1), splits_samples=splits)


def test_accumulation_has_no_meaning_where_samples_are_split() -> None:
    with pytest.raises(
        ConfigError, match=r"^gradient_accumulation_steps: got 2, which has no effect .* --micro_batch_size"
    ):
        cut_batch(ScheduleConfig(split_sample=True, gradient_accumulation_steps=2), 3)


def test_keys_of_the_command_line_make_a_config(tmp_path: Path) -> None:
    """model and schedule are keys and sections: as a key each means what it means on the command line."""
    config = Config(model="segformer:b0", schedule="poly", data_path=tmp_path, total_steps=7)
    assert (config.model.model, config.schedule.schedule, config.schedule.total_steps) == ("segformer:b0", "poly", 7)
    assert config.data.data_path == str(tmp_path)
    assert config == Config.from_flat(config.flat())
    with pytest.raises(ConfigError, match=r"Unknown key .total_step.\. Did you mean .total_steps."):
        Config(total_step=7)


@pytest.mark.parametrize("value", [None, "", [], {}, float("nan"), [None], {"a": None}], ids=repr)
def test_nothing_in_place_of_a_value_is_a_sentence_or_the_default(value: object) -> None:
    """For every key, as an empty line of YAML and a program give it."""
    for key in KEYS:
        with contextlib.suppress(ConfigError):
            Config(**{key: value})


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "export", "configure", "bench", "plan", "demo"])
def test_null_on_the_command_line_is_a_sentence_or_the_default(command: str) -> None:
    """For each command's own keys and, of one of them, those of the config."""
    declared = find_command(command)
    keys = (
        declared.hints if command == "train" else [] if declared.own_options is None else hints_of(declared.own_options)
    )
    for key in keys:
        with contextlib.suppress(ConfigError):
            parse(declared, ["x.yaml"] * (declared.needs is not None) + [f"--{key}", "null"])
