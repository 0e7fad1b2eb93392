"""The stages of the check of a GPU, the most worth knowing first.

Owns what each measures and the seconds it needs. All but those of CUDA's own switches run on any device.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from unet_dist.assembly.network import build_network
from unet_dist.benchmark.ceilings import copy_rate, matmul_rate
from unet_dist.benchmark.gpu_check import SMOKE, Check, Figures, NotHereError, Stage, require_cuda
from unet_dist.benchmark.gpu_step import longest_kernels, norms, steps, synchronisations
from unet_dist.benchmark.inference import as_in_predict, image_pixels
from unet_dist.benchmark.step import run_loop
from unet_dist.benchmark.timing import affordable, seconds, synchronise
from unet_dist.data.decoded.settings import cache_folder
from unet_dist.errors import UnetDistError
from unet_dist.machine.arithmetic import compute_in_float32
from unet_dist.machine.doctor import examine
from unet_dist.machine.memory import is_out_of_memory
from unet_dist.models.contract import as_module
from unet_dist.prediction.exact import ExactTiles
from unet_dist.prediction.image import predict_rasters
from unet_dist.training.parts import Progress
from unet_dist.training.trainer import StepTooLargeError, Trainer
from unet_dist.wording import shorten

_REPEATED_STEPS = 6
_LARGE_BATCH_TOLERANCE = 0.02  # assumption: bf16 rounds to 0.4 %; an index that overflows is wrong by far more
_OOM_ROOM_BYTES = 64 * 2**20  # less than one activation of the first level at 732 px
_ROOT = Path(__file__).resolve().parents[2]


def versions(check: Check) -> Figures:
    """What `unet-dist doctor` prints."""
    found = examine({"folder of runs": Path.cwd(), "folder of caches": cache_folder()}, os.environ)
    rows = {heading: [{"name": name, "value": value} for name, value in own] for heading, own in found.rows.items()}
    return {**rows, "remarks": [{"remark": remark} for remark in found.remarks]}


def rates(check: Check) -> Figures:
    """The two roofs of the device."""
    device, scale = check.processes.device, check.scale
    budget_s = 5.0 * scale.pace
    for name, dtype, tf32 in _number_types(device, torch.bfloat16, torch.float32):
        with _arithmetic(tf32):
            check.matmul_flops_per_s[name] = matmul_rate(device, dtype, budget_s, scale.matmul_side)
    found = {f"matmul {name}, TFLOP/s": rate / 1e12 for name, rate in check.matmul_flops_per_s.items()}
    return {**found, "copy, GB/s": copy_rate(device, budget_s, scale.copy_bytes) / 1e9}


# ------------------------------------------------------------------------------------------------------------- the run


def labels_by_tile(check: Check) -> Figures:
    """Predict an image at two tile sizes in each type of number: the share of labels that differ, of random weights."""
    device, (small, large) = check.processes.device, check.scale.tile_sizes
    setting = check.open(check.scale.batches[0])
    image = image_pixels(setting.cache.split("validation").image(0))
    model: Any = build_network(setting.config, setting.cache)
    rows = []
    for name, dtype, tf32 in _number_types(device, torch.float64, torch.float32, torch.bfloat16):
        # As a run does: half precision is of the products, not of the weights.
        is_mixed = dtype == torch.bfloat16
        own = copy.deepcopy(model).to(device, torch.float32 if is_mixed else dtype).eval()
        around = partial(torch.autocast, device.type, torch.bfloat16, enabled=is_mixed)
        with _arithmetic(tf32), as_in_predict():
            labels = [predict_rasters(ExactTiles(own), image, side, around)["labels"] for side in (small, large)]
        share = float(np.mean(labels[0] != labels[1]))
        rows.append({"numbers": name, "share of labels that differ": share})
        if dtype == torch.float64 and share > 0:
            raise UnetDistError(
                f"{share:.2e} of the labels differ in float64 between tiles of {small} and {large} px: expected none."
            )
    return {"tile sizes, px": f"{small} and {large}", "pixels": int(labels[0].size), "labels": rows}


def large_batch(check: Check) -> Figures:
    """Compare the gradient of one large micro-batch with that of its halves: kernels may count values in 32 bits."""
    count = check.scale.large_batch
    moments = []
    for micro in (count, count // 2):
        setting = check.open(count, micro_batch_size=micro)
        try:
            setting.subject.bare.make(1)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise NotHereError(f"{micro} crops at once do not fit into this device.") from None
            raise
        state = setting.parts.optimizer.state
        moments.append([state[p]["exp_avg"].double() for p in as_module(setting.parts.model).parameters()])
        del setting, state
        check.free()
    whole, halves = moments
    squares = sum(float((a - b).square().sum()) for a, b in zip(whole, halves, strict=True))
    size = sum(float(a.square().sum()) for a in whole)
    if not size > 0:
        raise UnetDistError(f"The gradient of {count} crops is {size}: expected a number above 0.")
    difference = (squares / size) ** 0.5
    if not difference < _LARGE_BATCH_TOLERANCE:
        raise UnetDistError(
            f"The gradient of {count} crops at once differs by {difference:.2g} from that of two halves."
        )
    return {"crops": count, "difference of gradients": difference}


def prediction(check: Check) -> Figures:
    """Predict an image in the run's precision: images and pixels per second."""
    setting = check.open(check.scale.batches[0])
    image = image_pixels(setting.cache.split("validation").image(0))
    model: Any = build_network(setting.config, setting.cache)
    tiles = ExactTiles(model.to(check.processes.device).eval())

    def predict(count: int = 1) -> None:
        for _ in range(count):
            predict_rasters(tiles, image, check.scale.tile_sizes[0], check.processes.autocast)

    with as_in_predict():
        predict()
        count = affordable(check.scale.steps, seconds(predict, check.processes.device), check.left_s / 4)
        image_s = seconds(lambda: predict(count), check.processes.device) / count
    pixels = image.shape[0] * image.shape[1]
    return {"image, px": pixels, "images/s": 1 / image_s, "Mpx/s": pixels / image_s / 1e6}


def debug_mode(check: Check) -> Figures:
    """Run the debug mode for two steps, as a user does: too few to overfit, so that its last sentence says so."""
    keys = {**check.keys, "debug": True, "batch_size": 2, "total_steps": 2, "processes": 1}
    keys["output_path"] = check.folder / "debug"
    try:
        _program(check, "train", *(f"--{key}={value}" for key, value in keys.items()))
    except UnetDistError as error:
        if "Could not overfit" not in str(error):
            raise
    return {"steps": 2, "looked at": "shapes, ranges, pictures and the overfit"}


def lost_process(check: Check) -> Figures:
    """Kill one of two processes in a step: the other must end with a sentence, and the same command must end the run."""
    if check.processes.device.type == "cuda" and torch.cuda.device_count() < 2:
        raise NotHereError("One device is here, and two processes need two.")
    steps = {"total_steps": 6, "eval_steps": 6, "checkpoint_steps": 1, "log_steps": 1}
    keys = {**check.keys, **steps, "batch_size": 2, "output_path": check.folder / "lost"}
    words = ["train", *(f"--{key}={value}" for key, value in keys.items())]
    (code, said), (killed, _) = _pair(check, words, dies=True)
    sentence = next((line for line in said.splitlines() if "unet-dist: error:" in line), "")
    if killed != _KILLED or code == 0 or not sentence:
        raise UnetDistError(f"A process was killed, and the other ended with {code}: {_last_line(said)}")
    ended = _pair(check, words, dies=False)
    if [code for code, _ in ended] != [0, 0]:
        raise UnetDistError(
            f"After a killed process the same command ended with {ended[0][0]}: {_last_line(ended[0][1])}"
        )
    return {"sentence": shorten(sentence, 200), "the same command": "ended the run"}


_KILLED = 9
_DYING = """
import os, sys
from unet_dist.cli import main
from unet_dist.training.trainer import Trainer
step = Trainer.step
def dying(self, *arguments):
    if self.progress.step == 3:
        os._exit(9)
    return step(self, *arguments)
Trainer.step = dying
main(sys.argv[1:])
"""


def _pair(check: Check, words: Sequence[str], *, dies: bool) -> list[tuple[int, str]]:
    """Run a command on two processes, the second of which may die: their exit codes, and what they printed."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    place = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = []
    try:
        for rank in ("0", "1"):
            code = ["-c", _DYING] if dies and rank == "1" else ["-m", "unet_dist"]
            environment = {**os.environ, **place, "RANK": rank, "LOCAL_RANK": rank}
            ranks.append(
                subprocess.Popen(
                    [sys.executable, *code, *words],
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        said = [process.communicate(timeout=max(1.0, check.left_s))[0] for process in ranks]
    except subprocess.TimeoutExpired as error:
        raise NotHereError(f"The time was over after {error.timeout:.0f} s. Set a larger --minutes.") from None
    finally:
        for process in ranks:
            process.kill()
            process.wait()
    return [(process.returncode, text) for process, text in zip(ranks, said, strict=True)]


def loop(check: Check) -> Figures:
    """What a run adds to its steps: the loop around them, a checkpoint, a validation."""
    setting = check.open(check.scale.batches[0])
    parts, bare, device = setting.parts, setting.subject.bare, check.processes.device
    bare.seconds(2)
    count = affordable(check.scale.steps, bare.seconds(1), check.left_s / 8)
    step_s = bare.seconds(count)
    laps = run_loop(parts, count, check.folder / "loop")
    trainer = Trainer(parts, Progress())
    pauses = []
    for _ in range(2):  # the first makes the buffer that the second has
        trainer.step(bare.share, bare.divisor)
        synchronise(device)
        started = time.perf_counter()
        trainer.boundary.save()
        pauses.append(time.perf_counter() - started)
        trainer.boundary.writer.wait()
    trainer.boundary.writer.close()
    parts.model.eval()
    parts.evaluate(lambda: False)
    validation_s = seconds(lambda: parts.evaluate(lambda: False), device)
    loop_s = fmean(lap.seconds for lap in laps)
    return {
        "bare step, ms": 1e3 * step_s,
        "loop, ms per step": 1e3 * loop_s,
        "loop / bare step": loop_s / step_s,
        "waiting for data, share": fmean(lap.data_wait for lap in laps),
        "checkpoint pause, ms": 1e3 * pauses[-1],
        "validation, images/s": len(setting.cache.split("validation")) / validation_s,
    }


def repeatability(check: Check) -> Figures:
    """Train some steps twice, and once more from half-way: the digests of the weights."""
    base = check.folder / "repeat"
    whole, again, resumed = (base / name for name in ("whole", "again", "resumed"))
    keys = {**check.keys, "batch_size": 2, "deterministic": True, "seed": 3, "keep_checkpoints": 2, "processes": 1}
    keys |= {"total_steps": _REPEATED_STEPS, "eval_steps": _REPEATED_STEPS, "checkpoint_steps": _REPEATED_STEPS // 2}
    last = f"checkpoints/step-{_REPEATED_STEPS:08d}"
    for output in (whole, again, resumed):
        if output is resumed:
            shutil.copytree(whole, output)
            shutil.rmtree(output / last)
        _program(check, "train", *(f"--{key}={value}" for key, value in {**keys, "output_path": output}.items()))
    digests = {
        o.name: hashlib.sha256((o / last / "model.safetensors").read_bytes()).hexdigest()
        for o in (whole, again, resumed)
    }
    if len(set(digests.values())) > 1:
        raise UnetDistError(f"SHA-256 of the weights after {_REPEATED_STEPS} steps differs: {digests}.")
    return {"steps": _REPEATED_STEPS, **{f"SHA-256, {name}": digest for name, digest in digests.items()}}


def out_of_memory(check: Check) -> Figures:
    """Take the memory away from a run: it must end in a sentence."""
    require_cuda(check, "only CUDA's allocator takes a limit")
    if check.scale is SMOKE:
        raise NotHereError("The sizes are tiny: a step fits into any limit.")
    device = check.processes.device
    setting = check.open(check.scale.batches[-1])
    room = torch.cuda.memory_reserved(device) + _OOM_ROOM_BYTES
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(device).total_memory)
    try:
        run_loop(setting.parts, 1, check.folder / "oom")
    except StepTooLargeError as error:
        return {"sentence": str(error)}
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    raise UnetDistError(f"A step fitted into {room:,} bytes: expected that memory runs out.")


def gpu_tests(check: Check) -> Figures:
    """Run the tests that want a GPU, where there is a checkout."""
    require_cuda(check, "the tests that are marked gpu need a CUDA device")
    if not (_ROOT / "tests").is_dir() or importlib.util.find_spec("pytest") is None:
        raise NotHereError("No tests are here: they come with a checkout, and need pytest.")
    files = [f for f in (_ROOT / "tests").rglob("test_*.py") if "pytest.mark.gpu" in f.read_text(encoding="utf-8")]
    words = ["-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *map(str, files)]
    return {"summary": _last_line(_call(check, words, cwd=_ROOT).stdout)}


def scaling(check: Check) -> Figures:
    """Compare all GPUs with one: the training by NCCL."""
    count = torch.cuda.device_count() if check.processes.device.type == "cuda" else 1
    if count < 2:
        raise NotHereError("One device is here, and scaling needs two or more.")
    return scaling_on(check, count)


def scaling_on(check: Check, count: int) -> Figures:
    """Run `bench` on this number of processes."""
    output = check.folder / "scaling"
    limits = {"bench_rounds": 3, "bench_seconds": max(1.0, 40 * check.scale.pace), "bench_predict": False}
    keys = {**check.keys, "batch_size": 2 * count, "output_path": output, **limits, "processes": count}
    _program(check, "bench", *(f"--{key}={value}" for key, value in keys.items()))
    report = json.loads((output / "bench.json").read_text(encoding="utf-8"))
    rows = [{"what": what, **spread} for what, spread in report["scaling"].items()]
    return {"processes": count, "times as fast as one": rows}


# Seconds are assumptions, of a large GPU: no GPU was at hand.
STAGES = (
    Stage("versions", "Versions and device", 0.0, versions),
    Stage("rates", "Rates of products and copies", 15.0, rates),
    Stage("synchronisations", "Synchronisations in the step", 20.0, synchronisations),
    Stage("steps", "The training step", 60.0, steps),
    Stage("labels", "Labels at two tile sizes", 20.0, labels_by_tile),
    Stage("norms", "The training step by norm", 30.0, norms),
    Stage("prediction", "Prediction", 15.0, prediction),
    Stage("kernels", "The longest kernels", 15.0, longest_kernels),
    Stage("loop", "Loop, checkpoint, validation", 30.0, loop),
    Stage("repeatability", "Repeatability", 60.0, repeatability),
    Stage("large", "A micro-batch beyond 32 bits", 20.0, large_batch),
    Stage("debug", "Debug mode", 20.0, debug_mode),
    Stage("memory", "When memory runs out", 15.0, out_of_memory),
    Stage("scaling", "Scaling over GPUs", 90.0, scaling),
    Stage("lost", "A killed process", 60.0, lost_process),
    Stage("tests", "Tests that need a GPU", 60.0, gpu_tests),
)


# -------------------------------------------------------------------------------------------------------------- shared


def _number_types(device: torch.device, *dtypes: torch.dtype) -> list[tuple[str, torch.dtype, bool]]:
    """Types of numbers by name, and whether float32 may round to TF32, which only CUDA has."""
    found = [(str(dtype).removeprefix("torch."), dtype, False) for dtype in dtypes]
    return [*found, ("tf32", torch.float32, True)] if device.type == "cuda" else found


@contextmanager
def _arithmetic(tf32: bool) -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    compute_in_float32(tf32=tf32)
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _program(check: Check, *words: str) -> None:
    """Run a command of ours in a process of its own."""
    _call(check, ["-m", "unet_dist", *words])


def _call(check: Check, words: Sequence[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python until it is done or the check's time is over.

    Raises:
        NotHereError: the time is over.
        UnetDistError: it ended with an error; has its last line.
    """
    try:
        ended = subprocess.run(
            [sys.executable, *words],
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            timeout=max(1.0, check.left_s),
        )
    except subprocess.TimeoutExpired as error:
        raise NotHereError(f"The time was over after {error.timeout:.0f} s. Set a larger --minutes.") from None
    if ended.returncode != 0:
        said = _last_line(ended.stderr) or _last_line(ended.stdout)
        raise UnetDistError(f"python {shorten(' '.join(words[:3]))} ended with {ended.returncode}: {said}")
    return ended


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]
