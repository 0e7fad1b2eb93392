"""Record what small runs compute, to the last bit, and compare with an earlier record: for changes that must change no result.

python -m tests.measure.same_result --output docs/evidence/same_result_before.json [--against FILE] [--only NAME ...]

Recorded are 20 steps of several settings in float64 and float32, on one process and on two (losses, gradient norms and mean
IoU as hexadecimal numbers, the SHA-256 of the models); predictions and evaluations of the networks trained so; and the
SHA-256 of the weights of runs that resumed from their checkpoint of step 10. Everything is asked of the command line and read
from the files it leaves, so that the package may be rebuilt inside. Bits are the same on one kind of processor with the
same versions of the libraries: where those are others, a record of the old commit is to be made there. Exits with 1 where a
bit differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
STEPS = 20
PATIENCE_S = 300.0
"""For a command that takes seconds. Assumption: after that it hangs."""

COMMON: dict[str, Any] = {
    "base_channels": 4, "depth": 2, "input_size": 92, "batch_size": 4, "learning_rate": 0.01, "seed": 20261123,
    "total_steps": STEPS, "eval_steps": 10, "checkpoint_steps": 10, "log_steps": 1, "trackers": "[]", "mixed_precision": "no",
}  # fmt: skip
SCENES: dict[str, Any] = {"data_path": ROOT / "tests/measure/same_result_data"}
"""Six street scenes as the package drew them when the first record was made, kept as files: a record outlives a redrawing."""
_STREET = (
    "[{name: Deform, scale: [0.75, 1.5], p: 0.8}, "
    "{name: ColorJitter, brightness: 0.3, contrast: 0.3, saturation: 0.3, hue: 0.03, p: 0.8}, "
    "{name: GaussianBlur, blur_limit: [3, 5], p: 0.2}]"
)
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"norm": "none"},
    "stem": {"norm": "weight", "stem_stride": 2, "input_size": 120},
    "batch_norm": {"norm": "batch"},
    "tiles": {"tile_size": 60},
    "split_sample": {"tile_size": 60, "split_sample": "true", "micro_batch_size": 2, "norm": "weight"},
    "mixture": {"loss": "cross_entropy+0.5*dice", "class_weights": "median", "ignore_index": 8, "max_grad_norm": 1.0},
    "street_ema": {"augmentation": _STREET, "ema_decay": 0.9, "num_workers": 1},
    "accumulation": {"norm": "group", "dropout": 0.2, "gradient_accumulation_steps": 2},
    "bf16": {"mixed_precision": "bf16"},
}
GREY: dict[str, Any] = {"norm": "weight", "label_smoothing": 0.1}
"""Trained on grey pictures in a folder, for the prediction of one."""
PREDICTIONS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "exact_60": ("plain", 1, {"tile_size": 60}),
    "exact_132": ("plain", 1, {"tile_size": 132}),
    "exact_two_processes": ("plain", 2, {"tile_size": 60}),
    "blended": ("accumulation", 1, {"tile_size": 60, "blend": "true"}),
    "whole_batch_norm": ("batch_norm", 1, {"whole": "true"}),
    "whole_group_norm": ("accumulation", 1, {"whole": "true"}),
    "grey": ("grey", 1, {"tile_size": 60}),
}
"""By name: the setting whose network predicts, the number of processes, what predict and evaluate are told."""
NAMES = [
    *(
        f"train/{setting}/{dtype}/{processes}"
        for setting, dtype, processes in product(SETTINGS, ("float64", "float32"), (1, 2))
        if (setting, dtype) != ("bf16", "float64")  # mixed precision has weights of float32
    ),
    *(f"predict/{name}" for name in PREDICTIONS),
    *("resume/accumulation/float32/1", "resume/street_ema/float32/1", "resume/street_ema/float32/2"),
]
"""Of all results, in the order in which they are made."""

Result = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="file of the record")
    parser.add_argument("--against", type=Path, help="record to compare with")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="parts of names, such as train, tiles or exact_60")
    options = parser.parse_args()
    before = json.loads(options.against.read_text(encoding="utf-8")) if options.against else None
    names = [name for name in NAMES if not options.only or set(options.only) & set(name.split("/"))]
    if not names:
        parser.error(f"--only: expected parts of {', '.join(NAMES)}")
    began, results = time.monotonic(), {}
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder))
        for number, name in enumerate(names, start=1):
            results[name] = workshop.result(name)
            print(f"{number} of {len(names)}, {time.monotonic() - began:.0f} s: {name}", flush=True)
        machine = workshop.machine()
    git = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    about = {"date": date.today().isoformat(), "commit": git.stdout.strip(), "machine": machine}
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(result)}" for name, result in results.items())
    options.output.parent.mkdir(parents=True, exist_ok=True)
    text = f'{{\n "about": {json.dumps(about)},\n "results": {{\n{lines}\n }}\n}}\n'  # a line a result
    options.output.write_text(text, encoding="utf-8")
    if before is not None:
        if before["about"]["machine"] != machine:
            print(f"Bits may differ as the machine is another: {before['about']['machine']} -> {machine}")
        compared = results if options.only else {**before["results"], **results}
        found = {name: list(differences(before["results"].get(name, {}), results.get(name, {}))) for name in compared}
        for name, said in found.items():
            print("".join(f"{name}: {sentence}\n" for sentence in said), end="")
        differing = sum(map(bool, found.values()))
        print(f"{len(found) - differing} of {len(found)} results are equal to the bit: {before['about']['commit']}")
        sys.exit(1 if differing else 0)


def differences(before: Result, after: Result) -> Iterator[str]:
    """Say what differs between two results, of steps the first one; nothing where they are equal to the bit."""
    for key in {**before, **after}:
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            yield from (f"{key}: {sentence}" for sentence in differences(old, new))
        elif key in ("loss", "grad_norm") and old and new:
            step, pair = next((i, p) for i, p in enumerate(zip(old, new, strict=True), start=1) if p[0] != p[1])
            one, other = map(float.fromhex, pair)
            relative = abs(other - one) / max(abs(one), sys.float_info.min)
            yield f"{key} differs from step {step} on, there {one!r} -> {other!r}, relatively {relative:.1e}"
        else:
            yield f"{key}: {str(old)[:200]} -> {str(new)[:200]}"


class Workshop:
    """Makes results, one after the other.

    Args:
        folder: for the runs, the cache and the pictures; empty.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("pictures", "grey_data/images", "grey_data/masks"):
            (folder / name).mkdir(parents=True)
        for name, mode, size in (("colour", "RGB", (203, 150)), ("small", "RGB", (70, 41)), ("grey", "L", (131, 97))):
            draw(mode, size, number=7).save(folder / f"pictures/{name}.png")
        for number in range(6):
            image = draw("L", (160, 128), number)
            image.save(folder / f"grey_data/images/{number}.png")
            thirds = bytes(value // 86 for value in image.tobytes())  # classes 0 to 2
            Image.frombytes("L", image.size, thirds).save(folder / f"grey_data/masks/{number}.png")

    def result(self, name: str) -> Result:
        """Make the result of a name."""
        kind, setting, *cut = name.split("/")
        if kind == "predict":
            return self._predict(setting)
        if setting == "bf16" and not has_bf16():
            return {"skipped": "the processor has no bf16 units"}
        dtype, processes = cut[0], int(cut[1])
        run = self._trained(setting, dtype, processes)
        if kind == "resume":
            return self._resume(run, setting, dtype, processes)
        return {**read_metrics(run), "model_sha256": digest(run / "last/model.safetensors")}

    def machine(self) -> dict[str, Any]:
        """What a run says that it was computed on."""
        path = next(self._folder.glob("runs/*/environment.json"))
        start = json.loads(path.read_text(encoding="utf-8"))["starts"][-1]
        return {key: value for key, value in start.items() if key not in ("step", "started", "processes")}

    def _trained(self, setting: str, dtype: str, processes: int) -> Path:
        """The folder of a finished run, made when it is first asked for."""
        run = self._folder / f"runs/{setting}-{dtype}-{processes}"
        if not run.exists():
            self._train(run, setting, dtype, processes)
        return run

    def _train(self, run: Path, setting: str, dtype: str, processes: int) -> None:
        data = {"data_path": self._folder / "grey_data", **GREY} if setting == "grey" else SCENES | SETTINGS[setting]
        places = {"cache_path": self._folder / "cache", "output_path": run}
        self._run(["train"], {**COMMON, **data, "dtype": dtype, **places}, processes)

    def _predict(self, name: str) -> Result:
        """Predict pictures, and evaluate on the whole data set in the same way."""
        setting, processes, keys = PREDICTIONS[name]
        run, output = self._trained(setting, "float32", 1), self._folder / name
        stems = ["grey"] if name == "grey" else ["colour", "small"]
        inputs = [str(self._folder / f"pictures/{stem}.png") for stem in stems]
        keys = {**keys, "mixed_precision": "no"}
        self._run(["predict", str(run), *inputs], {**keys, "output": output, "confidence": "true"}, processes)
        evaluation = {"split": "all", "pictures": 0, "output_path": output}
        self._run(["evaluate", str(run)], {**keys, **evaluation}, processes)
        scores = json.loads((output / "evaluation-all.json").read_text(encoding="utf-8"))
        return {
            "pixels_sha256": {
                path.name: pixel_digest(path)
                for path in sorted(output.glob("*.png"))
                if not path.stem.endswith("_overlay")  # a drawing, which may change
            },
            "miou": scores["miou"].hex(),
            "pixel_accuracy": scores["pixel_accuracy"].hex(),
            "confusion": scores["confusion"],
        }

    def _resume(self, run: Path, setting: str, dtype: str, processes: int) -> Result:
        """Resume from step 10 of a run, as if nothing had come after it."""
        copy, end = run.with_name(f"{run.name}-resumed"), f"checkpoints/step-{STEPS:08d}"
        shutil.copytree(run, copy)
        shutil.rmtree(copy / end)
        shutil.rmtree(copy / "last")
        self._train(copy, setting, dtype, processes)
        files = [f"{end}/model.safetensors", f"{end}/optimizer.safetensors", "last/model.safetensors"]
        resumed, undisturbed = ({name: digest(folder / name) for name in files} for folder in (copy, run))
        starts = json.loads((copy / "environment.json").read_text(encoding="utf-8"))["starts"]
        is_equal = resumed == undisturbed and read_metrics(copy) == read_metrics(run)
        return {"resumed_from": starts[-1]["step"], "sha256": resumed, "equals_undisturbed": is_equal}

    def _run(self, words: Sequence[str], keys: dict[str, Any], processes: int) -> None:
        """Run a command on so many processes, started as a launcher does.

        Raises:
            RuntimeError: one of them left with an error.
        """
        command = [sys.executable, "-m", "unet_dist", *words, *(f"--{key}={value}" for key, value in keys.items())]
        environment, place, ranks = quiet_environment(), {}, []
        if processes > 1:
            place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
            place |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(processes))
        with (self._folder / "said.txt").open("w+b") as said:
            try:
                for rank in range(processes):
                    own = {**place, "RANK": str(rank), "LOCAL_RANK": str(rank)} if place else {}
                    process = subprocess.Popen(command, cwd=ROOT, env=environment | own, stdout=said, stderr=said)
                    ranks.append(process)
                codes = [process.wait(PATIENCE_S) for process in ranks]
            finally:
                for process in ranks:
                    process.kill()
                    process.wait()
            if any(codes):
                said.seek(0)
                raise RuntimeError(f"{command} left with {codes}:\n{said.read().decode(errors='replace')[-3000:]}")


def read_metrics(run: Path) -> dict[str, list[str]]:
    """The numbers of each step and each validation, to the last bit."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    train = [record for record in records if record["split"] == "train"]
    assert [record["step"] for record in train] == list(range(1, STEPS + 1)), f"{run.name}: not every step is recorded"
    scores = [record["miou"].hex() for record in records if record["split"] == "validation"]
    return {
        **{key: [float(record[key]).hex() for record in train] for key in ("loss", "grad_norm")},
        "validation_miou": scores,
    }


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pixel_digest(path: Path) -> str:
    """The SHA-256 of a picture's kind, size and pixels, however the file packs them."""
    with Image.open(path) as image:
        return hashlib.sha256(f"{image.mode} {image.size} ".encode() + image.tobytes()).hexdigest()


def draw(mode: str, size: tuple[int, int], number: int) -> Image.Image:
    """A picture of slanted bands with a texture, RGB or L; by whole numbers, so that it is the same everywhere."""
    pixels = (
        (x + 2 * y + 37 * number) // 24 * (53 + 31 * channel) + (x * y + 3 * number) % 29
        for y, x, channel in product(range(size[1]), range(size[0]), range(len(mode)))
    )
    return Image.frombytes(mode, size, bytes(value % 256 for value in pixels))


def quiet_environment() -> dict[str, str]:
    """The environment of a process on CPUs that no launcher has touched; one thread, as bits are for a thread count."""
    launcher = ("ACCELERATE_", "SLURM_", "TORCHELASTIC_")
    ranks = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    kept = {k: v for k, v in os.environ.items() if not k.startswith(launcher) and k not in ranks}
    return {**kept, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def free_port() -> str:
    """A port of the loopback address that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def has_bf16() -> bool:
    """Whether the processor computes bf16 in hardware; where it emulates it, a step takes minutes."""
    path = Path("/proc/cpuinfo")
    flags = path.read_text(encoding="utf-8", errors="replace").split() if path.exists() else []
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)


if __name__ == "__main__":
    main()
