"""Write the table of input sizes from the runs OUTPUT/input-*: python launch/input_size_table.py OUTPUT.

Reads what training and evaluation left in each run's folder, and writes OUTPUT/input_sizes.md, .csv and .json. A run that is not
finished or not evaluated yet has a dash.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

from unet_dist.assembly.data_set import open_data
from unet_dist.assembly.network import build_skeleton
from unet_dist.assembly.run_folder import read_run_config
from unet_dist.assembly.sizes import resolve_input_size
from unet_dist.errors import CheckpointError, UnetDistError
from unet_dist.report.patches import count_patches
from unet_dist.report.published import PUBLISHED
from unet_dist.runs.metrics_log import read_metrics
from unet_dist.storage.files import write_whole
from unet_dist.terminal import Teller
from unet_dist.wording import duration

# The published comparison of the sizes: segments/sidewalk-semantic, 1080x1920, 35 classes, batch 16.
PUBLISHED_STEPS = 2000
PUBLISHED_MIOU = {row.input_size: row.miou for row in PUBLISHED if row.steps == PUBLISHED_STEPS}
# It quotes this output for 724, which its network does not take: 732 gives 548, and 716 gives 532.
PUBLISHED_OUTPUT = {724: 540}

HEADS = {
    "input": "input",
    "output": "output",
    "abutting": "patches, abutting (as published)",
    "aligned": "patches, aligned (ours)",
    "tile_size": "training tiles",
    "miou": "mean IoU, ours (test)",
    "published_miou": "mean IoU, published",
    "seconds": "time",
    "memory_bytes": "peak memory of a process",
}


def read_row(run: Path) -> dict[str, Any]:
    """One run as numbers; None where there is nothing yet.

    Raises:
        CheckpointError: it is no run's folder.
    """
    config = read_run_config(run)
    quiet = Teller(speaks=False)
    model = build_skeleton(config)
    cache = open_data(config, quiet)
    image = max(zip(cache.table["heights"].tolist(), cache.table["widths"].tolist(), strict=True))
    # The config of a run holds the side after rounding; the folder's name has the size that was given.
    name = run.name.removeprefix("input-")
    asked = int(name) if name.isdigit() else name
    side = resolve_input_size(config.schedule.input_size, model, quiet)
    patches = count_patches(
        model.window_sizes,
        model.locality,
        side,
        image,
        quoted_output=PUBLISHED_OUTPUT.get(asked) if isinstance(asked, int) else None,
    )
    records = read_metrics(run / "metrics.jsonl")
    evaluation = run / "evaluation-test.json"
    scores = json.loads(evaluation.read_text(encoding="utf-8")) if evaluation.is_file() else {}
    steps = max((record["step"] for record in records), default=0)
    return {
        "input": asked,
        "window": side,
        "output": patches.output,
        "image": list(image),
        "abutting": list(patches.abutting),
        "aligned": list(patches.aligned) if patches.aligned else None,
        "tile_size": config.run.tile_size,
        "miou": scores.get("miou"),
        "published_miou": PUBLISHED_MIOU.get(asked) if isinstance(asked, int) else None,
        "seconds": training_seconds(records, config.schedule.batch_size) if records else None,
        "memory_bytes": max((record["memory_bytes"] for record in records if "memory_bytes" in record), default=None),
        "steps": steps,
        "is_finished": steps >= config.schedule.total_steps,
        "data": scores.get("data", cache.name),
    }


def training_seconds(records: list[dict[str, Any]], batch_size: int) -> float:
    """Wall time of training and validations, from the pace that each line of metrics states."""
    seconds, before = 0.0, 0
    for record in records:
        if record["split"] == "train":
            seconds += (record["step"] - before) * batch_size / record["images_per_s"]
            before = record["step"]
        else:
            seconds += record["seconds"]
    return seconds


def as_cells(row: dict[str, Any]) -> dict[str, str]:
    """A row as people read it."""
    size = "full" if row["window"] is None else f"{row['input']}"
    rounded = row["window"] not in (None, row["input"])
    grids = {key: "-" if row[key] is None else "x".join(map(str, row[key])) for key in ("abutting", "aligned")}
    return {
        "input": f"{size} (takes {row['window']})" if rounded else size,
        "output": "the image" if row["output"] is None else f"{row['output']}",
        **grids,
        "tile_size": "-" if row["tile_size"] is None else f"at most {row['tile_size']}",
        "miou": "-" if row["miou"] is None else f"{row['miou']:.4f}",
        "published_miou": "-" if row["published_miou"] is None else f"{row['published_miou']:.4f}",
        "seconds": "-" if row["seconds"] is None else duration(row["seconds"]) + (not row["is_finished"]) * " so far",
        "memory_bytes": "-" if row["memory_bytes"] is None else f"{row['memory_bytes'] / 2**30:.2f} GiB",
    }


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """The table, and under it what its columns mean."""
    lines = ["| " + " | ".join(HEADS.values()) + " |", "|" + "---|" * len(HEADS)]
    lines += ["| " + " | ".join(as_cells(row)[key] for key in HEADS) + " |" for row in rows]
    height, width = rows[0]["image"]
    return "\n".join(lines) + (
        f"\n\nData: {rows[0]['data']}, images of {height}x{width}. Patches: tiles that cover an image, abutting outputs as the "
        "literature lays them, aligned to the network's stride as unet_dist predicts. Published: 2,000 steps of 16 crops on "
        "segments/sidewalk-semantic, where 540 is quoted as the output of 724; comparable with ours on that data and schedule "
        "only. Time: training with its validations. Peak memory: of the device on a GPU, resident on a CPU.\n"
    )


def as_csv(rows: list[dict[str, Any]]) -> str:
    """The numbers, a line a run."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {key: "x".join(map(str, value)) if isinstance(value, list) else value for key, value in row.items()}
        )
    return text.getvalue()


def main(output: Path) -> None:
    """Write and print the table; a mistake is a sentence and exit code 2."""
    try:
        runs = [path for path in output.glob("input-*") if (path / "config.yaml").is_file()]
        if not runs:
            raise CheckpointError(
                f"{output}: got no folder input-SIZE with a run, expected what launch/input_size_sweep.sh or "
                "launch/slurm/input_sizes.sbatch left there. Check the path."
            )
        rows = sorted(map(read_row, runs), key=lambda row: (row["window"] is None, row["window"]))
        write_whole(output / "input_sizes.json", json.dumps(rows, indent=1).encode())
        write_whole(output / "input_sizes.csv", as_csv(rows).encode())
        write_whole(output / "input_sizes.md", as_markdown(rows).encode())
    except UnetDistError as error:
        print(f"unet-dist: error: {error}", file=sys.stderr)
        sys.exit(2)
    print(as_markdown(rows))
    print(f"Written: {output}/input_sizes.md, .csv, .json")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
