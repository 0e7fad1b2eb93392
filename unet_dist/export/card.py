"""The model card: what somebody who finds the model must know, as text.

Owns the words. It states only records: figures of evaluations that were made, a licence that was named. Must not know
where the folder goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from unet_dist.config.sections import Config
from unet_dist.data.decoded.labels import label_dtype
from unet_dist.models.answers import answers_of
from unet_dist.models.contract import TrainableNetwork
from unet_dist.models.pretrained import PretrainedModel
from unet_dist.runs.records import read_evaluation
from unet_dist.wording import markdown

CARD_FILE = "README.md"
EXAMPLE_FILE, EXAMPLE_INPUT_FILE = "example.png", "example_input.png"

_TRAINING_KEYS = (
    *("data_path", "input_size", "batch_size", "total_steps", "learning_rate", "schedule", "weight_decay", "seed"),
    *("class_weights", "horizontal_flip", "augmentation", "mixed_precision"),
)

_CARD_KEYS = {"data", "split", "images", "miou", "pixel_accuracy", "iou"}
"""Of an evaluation that a card shows; one without is of another program."""


def read_evaluations(folder: Path) -> list[dict[str, Any]]:
    """Read what `evaluate` wrote into a run's folder: evaluation-*.json, test first."""
    found = [read_evaluation(path) for path in sorted(folder.glob("evaluation-*.json"))]
    whole = [record for record in found if record.keys() >= _CARD_KEYS]
    return sorted(whole, key=lambda record: record["split"] != "test")


def write_card(
    model: TrainableNetwork,
    *,
    name: str,
    trained: Config | None,
    evaluations: Sequence[dict[str, Any]],
    license: str | None,
    repo_id: str | None,
    example: str | None,
) -> str:
    """Write the card.

    Args:
        name: of the model, for people.
        trained: the run's config, where it is known.
        evaluations: as `evaluate` records them.
        license: as the hub names it, such as mit or apache-2.0.
        repo_id: on the hub, where the folder goes there.
        example: what the picture shows, None where there is none.
    """
    parts = [
        _front_matter(model, name, trained, evaluations, license),
        f"# {markdown(name)}",
        _introduction(model),
        _usage(model, repo_id, has_example=example is not None),
    ]
    if example is not None:
        parts.append(
            f"![{example}, and the network's labels]({EXAMPLE_FILE})\n\n*{example}, and what the network makes of it.*"
        )
    parts += [_scores(evaluations, model), _training(trained), _pixels(model), _terms(license, trained, model)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(
    model: TrainableNetwork,
    name: str,
    trained: Config | None,
    evaluations: Sequence[dict[str, Any]],
    license: str | None,
) -> str:
    results = [
        EvalResult(
            task_type="image-segmentation",
            dataset_type=public_name(record["data"]),
            dataset_name=public_name(record["data"]),
            dataset_split=record["split"],
            metric_type=metric,
            metric_name=words,
            metric_value=round(record[key], 4),
        )
        for record in evaluations
        for key, metric, words in (
            ("miou", "mean_iou", "mean IoU"),
            ("pixel_accuracy", "accuracy", "pixel accuracy"),
        )
    ]
    data = ModelCardData(
        license=license,
        library_name="unet_dist",
        pipeline_tag="image-segmentation",
        tags=["semantic-segmentation", model.model_type],
        datasets=[trained.data.data_path] if trained is not None and _is_hub_id(trained.data.data_path) else None,
        model_name=name if results else None,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---"


def _is_hub_id(data_path: str) -> bool:
    return data_path.count("/") == 1 and not data_path.startswith(("/", ".", "~")) and not Path(data_path).exists()


def public_name(data: str) -> str:
    """The name of a data set without the folders of the machine that it lies on."""
    return data if _is_hub_id(data) else Path(data).name


def is_of_scenes(trained: Config | None) -> bool:
    """Whether the network was trained on the drawn street scenes."""
    return trained is not None and trained.data.data_path == "synthetic"


def _introduction(model: TrainableNetwork) -> str:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    channels = {1: "grey", 3: "RGB"}.get(model.in_channels, f"{model.in_channels}-channel")
    kind = "which may overlap" if answers_of(model).overlap else "one per pixel"
    return (
        f"A semantic segmentation network ({model.model_type}, {parameters:,} parameters) for {channels} images: "
        f"{model.num_classes} classes, {kind}. Made with `unet_dist`."
    )


def _usage(model: TrainableNetwork, repo_id: str | None, *, has_example: bool) -> str:
    command = f"unet-dist predict {repo_id or 'FOLDER'} some.jpg --output out"
    if model.locality is None:  # predict_image knows exact tiles only
        return f"## Use\n\n`{command}{'' if model.resize_to else ' --blend'}`"
    load = "from unet_dist import load_model, predict_image"
    image = f'"{EXAMPLE_INPUT_FILE if has_example else "some.jpg"}"'
    if repo_id is None:
        where, note = ".", "  # this folder, or its id on the hub"
    else:
        where, note = repo_id, ""
        if has_example:
            load = f"from huggingface_hub import hf_hub_download\n{load}"
            image = f'hf_hub_download("{repo_id}", {image})'
    overlap = answers_of(model).overlap
    kind = (
        "(classes, height, width) uint8, 1 where a class is"
        if overlap
        else f"(height, width) {label_dtype(model.num_classes)}, one class id per pixel"
    )
    return (
        f'## Use\n\n```python\n{load}\n\nmodel = load_model("{where}"){note}\n'
        f"labels = predict_image(model, {image})  # {kind}\n```\n\n"
        f"On the command line: `{command}`."
    )


def _scores(evaluations: Sequence[dict[str, Any]], model: TrainableNetwork) -> str:
    if not evaluations:
        return "## Scores\n\nNo evaluation was recorded."
    splits = [markdown(f"{record['split']} of {public_name(record['data'])}") for record in evaluations]
    lines = [f"| | {' | '.join(splits)} |", f"|---|{'---:|' * len(splits)}"]
    rows = {
        "images": [f"{record['images']}" for record in evaluations],
        "**mean IoU**": [f"**{record['miou']:.4f}**" for record in evaluations],
        "pixel accuracy": [f"{record['pixel_accuracy']:.4f}" for record in evaluations],
    }
    for name in dict.fromkeys(name for record in evaluations for name in record.get("metrics", {})):
        values = [record.get("metrics", {}).get(name) for record in evaluations]
        rows[markdown(name)] = ["-" if value is None else f"{value:.4f}" for value in values]
    names = list(dict.fromkeys(name for record in evaluations for name in record["iou"]))
    for name in names:
        values = [record["iou"].get(name) for record in evaluations]
        rows[f"IoU {markdown(name)}"] = ["-" if value is None else f"{value:.4f}" for value in values]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    ignored = "" if model.ignore_index is None else f" Class {model.ignore_index} counts nowhere."
    return (
        "## Scores\n\n"
        + "\n".join(lines)
        + "\n\nMean IoU: the mean over the classes that occur in labels or predictions of the "
        f"split, from the counts of all its pixels; -: the class does not occur.{ignored}"
    )


def _training(trained: Config | None) -> str:
    if trained is None:
        return ""
    values = trained.flat() | {"data_path": public_name(trained.data.data_path)}
    lines = [f"| {key} | {markdown(str(values[key]))} |" for key in _TRAINING_KEYS if values.get(key) is not None]
    return "## Training\n\n| key | value |\n|---|---|\n" + "\n".join(lines)


def _pixels(model: TrainableNetwork) -> str:
    names = model.class_names or [f"class {index}" for index in range(model.num_classes)]
    mean, std = (", ".join(f"{value:.2f}" for value in values) for values in (model.mean, model.std))
    lines = [
        "## Pixels and classes",
        f"Images are uint8; they are normalised by mean {mean} and deviation {std} per channel (`predict_image` does it).",
    ]
    if model.locality is not None:
        lines.append("Labels do not depend on the tile size (`predict_image(..., tile_size=...)`).")
    ignored = model.ignore_index
    table = [
        f"| {index} | {markdown(name)}{' (never predicted)' * (index == ignored)} |" for index, name in enumerate(names)
    ]
    lines.append("| id | class |\n|---|---|\n" + "\n".join(table))
    return "\n\n".join(lines)


def _terms(license: str | None, trained: Config | None, model: Any) -> str:
    origin = model.origin() if isinstance(model, PretrainedModel) else None
    began = "" if origin is None else f" They began with those of {origin}."
    stated = f"Licence of the weights: {license}." if license else "No licence was stated for these weights."
    data = "the data" if trained is None else markdown(public_name(trained.data.data_path))
    about = (
        " They were trained on scenes that unet_dist drew by itself."
        if is_of_scenes(trained)
        else f" They were trained on {data}, whose own terms apply to works made of it."
    )
    return "## Terms\n\n" + stated + began + about
