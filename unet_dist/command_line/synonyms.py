"""Keys of other toolkits, and what they are called here."""

from __future__ import annotations

from collections.abc import Container

# Ours, and what differs in its meaning. A key of ours in angle brackets is a word without a key.
_SYNONYMS: dict[str, tuple[str, str]] = {
    **dict.fromkeys(
        ("epochs", "max_epochs", "num_epochs"), ("total_steps", "in optimizer steps: epochs x images / batch_size")
    ),
    **dict.fromkeys(("iters", "max_iters", "max_steps", "iterations", "steps"), ("total_steps", "in optimizer steps")),
    **dict.fromkeys(("imgsz", "img_size", "crop_size", "patch_size"), ("input_size", "the side of the window, px")),
    **dict.fromkeys(("lr", "lr0", "base_lr", "max_lr"), ("learning_rate", "at its peak")),
    **dict.fromkeys(("workers", "num_loader_workers"), ("num_workers", "")),
    **dict.fromkeys(("batch", "train_batch_size", "bs"), ("batch_size", "over all processes")),
    **dict.fromkeys(("data", "dataset", "data_dir", "data_root"), ("data_path", "")),
    **dict.fromkeys(
        ("project", "save_dir", "work_dir", "out_dir", "output_dir", "logdir", "exp_name"), ("output_path", "")
    ),
    **dict.fromkeys(("out", "out_dir", "save_to"), ("output", "")),
    **dict.fromkeys(
        ("weights", "checkpoint", "ckpt", "pretrained"), ("init_from", "a run, a model folder or a hub id")
    ),
    **dict.fromkeys(("amp", "fp16", "half", "bf16", "precision"), ("mixed_precision", "no, fp16 or bf16")),
    **dict.fromkeys(("nc", "classes", "n_classes"), ("num_classes", "")),
    **dict.fromkeys(("val_interval", "eval_interval", "val_steps"), ("eval_steps", "in optimizer steps")),
    **dict.fromkeys(("save_interval", "save_steps", "save_period"), ("checkpoint_steps", "in optimizer steps")),
    **dict.fromkeys(("gpus", "num_gpus", "nproc", "nproc_per_node", "num_processes", "devices"), ("processes", "")),
    **dict.fromkeys(("patience",), ("early_stopping_evals", "in validations")),
    **dict.fromkeys(("accumulate", "grad_accum", "accumulation_steps"), ("gradient_accumulation_steps", "")),
    **dict.fromkeys(("arch", "architecture", "network"), ("model", "")),
    **dict.fromkeys(("wd", "decay"), ("weight_decay", "")),
    **dict.fromkeys(("patch", "window", "window_size", "tile"), ("tile_size", "the side of the window, px")),
    **dict.fromkeys(("random_seed", "manual_seed"), ("seed", "")),
}
# Where the key above is none of the command's: the word of these, without a key.
_WORDS = {
    "weights": "RUN, the first word",
    "checkpoint": "RUN, the first word",
    "ckpt": "RUN, the first word",
    "model": "RUN, the first word",
    "run": "RUN, the first word",
    "source": "INPUT..., the words after RUN",
    "input": "INPUT..., the words after RUN",
    "images": "INPUT..., the words after RUN",
    "config": "CONFIG.yaml, a word without a key",
    "cfg": "CONFIG.yaml, a word without a key",
}


def answer_synonym(key: str, keys: Container[str]) -> str | None:
    """Say what a key of another toolkit is called here; None for a key that is in none of the tables.

    Args:
        keys: those that the command takes.
    """
    ours, note = _SYNONYMS.get(key, ("", ""))
    if ours in keys:
        return f"Here it is --{ours}{f' ({note})' if note else ''}. --help {ours} explains it."
    if key in _WORDS:
        return f"Here it is {_WORDS[key]}. --help shows the usage."
    return None
