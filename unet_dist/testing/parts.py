"""The promises of losses, sources, formats, transforms, metrics and courses, as checks that anyone runs on theirs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unet_dist.data.batches.crops import SampleTransform
from unet_dist.data.batches.label_counts import count_labels
from unet_dist.data.batches.transforms import CheckedTransform
from unet_dist.data.decoded.labels import IGNORED
from unet_dist.data.sources.pairs import Mask, RawPair, Source
from unet_dist.errors import ConfigError, UnetDistError
from unet_dist.imaging.encoded import Encoded, parsing
from unet_dist.imaging.image import ImageFormat, Interpret, Opening
from unet_dist.imaging.values import PIXEL_TYPES
from unet_dist.losses.contract import Loss
from unet_dist.metrics.registry import Metric
from unet_dist.testing.checking import promise
from unet_dist.training.courses import Course


def check_loss(loss: Loss, *, num_classes: int = 5) -> None:
    """Check that a loss is a sum: however a batch is cut into samples and, unless it sees whole images, tiles.

    Value and gradient are compared in float64; a crop without a valid pixel adds nothing; narrow logits are summed in float32.

    Raises:
        BrokenPromiseError: a promise that is not kept, in a sentence.
    """
    logits, labels = _batch(num_classes)
    whole = _value(loss, logits, labels, [(slice(None),)])
    promise(
        bool(whole[1].isfinite().all() and whole[1].abs().max() > 0),
        "loss: its gradient is 0 everywhere, or not finite.",
    )
    cuts: dict[str, list[tuple[slice, ...]]] = {"samples": [(slice(0, 1),), (slice(1, 4),)]}
    if not loss.sees_whole_images:
        cuts["tiles"] = [(slice(None), slice(0, 2)), (slice(None), slice(2, 6))]
    for name, parts in cuts.items():
        got = _value(loss, logits, labels, parts)
        for what, one, other in zip(("value", "gradient"), got, whole, strict=True):
            difference = float((one - other).abs().max() / other.abs().max())
            promise(
                difference <= 1e-10, f"loss: cut into {name} its {what} differs from the whole's by {difference:.1e}."
            )
    void = torch.full_like(labels, IGNORED)
    value, gradient = _value(loss, logits, void, [(slice(None),)])
    promise(
        float(value) == 0 and float(gradient.abs().max()) == 0,
        f"loss: without a valid pixel it is {float(value)}, expected 0.",
    )


def _batch(num_classes: int) -> tuple[Tensor, Tensor]:
    """Samples that ignore very different shares of their pixels."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(4, num_classes, 6, 7, generator=random, dtype=torch.float64)
    labels = torch.randint(num_classes, (4, 6, 7), generator=random, dtype=torch.uint8)
    for sample, share in enumerate((0.0, 0.2, 0.9, 0.5)):
        labels[sample][torch.rand(6, 7, generator=random) < share] = IGNORED
    return logits, labels


def _value(loss: Loss, logits: Tensor, labels: Tensor, parts: list[tuple[slice, ...]]) -> tuple[Tensor, Tensor]:
    """Value and gradient of a batch that is cut into parts, as the trainer puts them together."""
    logits = logits.clone().requires_grad_()
    cut = [(logits[part[0], :, part[1]] if len(part) > 1 else logits[part[0]], labels[part]) for part in parts]
    divisor = torch.stack([loss.divisor(count_labels(label)) for _, label in cut]).sum(0)
    totals = None
    if loss.has_statistics:
        totals = torch.stack([loss.statistics(logit.detach(), label) for logit, label in cut]).sum(0)
    sums = torch.cat([loss.sums(logit, label, totals=totals) for logit, label in cut])
    value = (sums.sum(0) / torch.where(divisor > 0, divisor, 1.0)).sum()
    (gradient,) = torch.autograd.grad(value, logits)
    return value.detach(), gradient


def check_source(source: Source, *, most: int = 8) -> None:
    """Check that a source gives the same pairs whenever and by whatever thread it is asked, and identifies them.

    Args:
        most: pairs of a split that are read.

    Raises:
        BrokenPromiseError: a promise that is not kept, in a sentence.
    """
    promise(
        bool(source.splits) and set(source.splits) <= {"train", "validation", "test"},
        f"source: got splits {source.splits}.",
    )
    asked = [(split, index) for split, count in source.splits.items() for index in range(min(count, most))]
    first = [source.read_pair(*one) for one in asked]
    with ThreadPoolExecutor(4) as threads:
        again = list(threads.map(lambda one: source.read_pair(*one), reversed(asked)))[::-1]
    for one, before, after in zip(asked, first, again, strict=True):
        promise(_same(before, after), f"source: {one} is another pair when several threads ask for it.")
        promise(bool(before.id), f"source: {one} has no id.")
    with tempfile.TemporaryDirectory() as memo:
        signed, again_signed = (source.signature(Path(memo)) for _ in range(2))
    is_one = bool(signed) and signed == again_signed
    promise(is_one, f"source: the same content was signed {signed!r} and {again_signed!r}.")


def _same(one: RawPair, other: RawPair) -> bool:
    return one.id == other.id and _equal(one.image, other.image) and _equal(one.mask, other.mask)


def _equal(one: Mask, other: Mask) -> bool:
    one, other = (part() if callable(part) else part for part in (one, other))
    return np.array_equal(one, other) if isinstance(one, np.ndarray) and isinstance(other, np.ndarray) else one == other


def check_format(part: ImageFormat, file: Path) -> None:
    """Check that a format knows its file, gives the same pixels by windows as whole, and refuses the half of it.

    Args:
        file: a sound image of this format, of several rows and columns.

    Raises:
        BrokenPromiseError: a promise that is not kept, in a sentence.
    """
    encoded = Encoded.of(file)
    wrong = [suffix for suffix in part.suffixes if suffix != suffix.lower() or not suffix.startswith(".")]
    promise(not wrong, f"format: got the suffixes {wrong}, expected lower case with a dot, such as .png.")
    promise(encoded.suffix in part.suffixes, f"format: {file.name} ends in none of {part.suffixes}.")
    promise(part.recognises(encoded), f"format: it does not recognise {file.name}.")
    others = (b"", bytes(range(100)), *([] if ".png" in part.suffixes else [b"\x89PNG\r\n\x1a\n" + bytes(8)]))
    for other in others:
        promise(not part.recognises(Encoded.of(other)), f"format: it takes the bytes {other[:8]!r} for its own.")
    content = file.read_bytes()
    with part.open(encoded, Opening()) as reader, part.open(Encoded.of(content), Opening()) as of_bytes:
        height, width, _ = reader.shape
        whole = reader.read(0, height, 0, width).copy()
        promise(
            whole.shape == reader.shape and whole.dtype == reader.dtype and whole.dtype.name in PIXEL_TYPES,
            f"format: the whole image is {whole.dtype} of {whole.shape}, expected {reader.dtype} of {reader.shape}, one of "
            f"{', '.join(PIXEL_TYPES)}.",
        )
        promise(np.array_equal(of_bytes.read(0, height, 0, width), whole), "format: from bytes it gives other pixels.")
        middle, centre = height // 2, width // 2
        rows, cols = ((0, middle), (middle, height)), ((0, centre), (centre, width))
        windows = [(*row, *col) for row in rows for col in cols] * 4
        with ThreadPoolExecutor(4) as threads:
            for window, pixels in zip(windows, threads.map(lambda one: reader.read(*one), windows), strict=True):
                cut = whole[window[0] : window[1], window[2] : window[3]]
                promise(np.array_equal(pixels, cut), f"format: the window {window} differs from the whole image.")
    with part.open(encoded, Opening(interpret=Interpret(lambda stored: lambda values: values[:, :, :1]))) as mask:
        promise(
            mask.shape == (height, width, 1), f"format: read as ids it is {mask.shape}; it ignores Opening.interpret."
        )
    promise(_refuses(part, content[: len(content) // 2]), "format: it reads a file that is cut in half.")


def _refuses(part: ImageFormat, content: bytes) -> bool:
    try:
        with parsing("it"), part.open(Encoded.of(content), Opening()) as reader:
            height, width, _ = reader.shape
            reader.read(0, height, 0, width)
    except UnetDistError:
        return True
    return False


def check_transform(transform: SampleTransform, *, channels: int = 3, height: int = 24, width: int = 32) -> None:
    """Check that a transform is a function of the seed alone, keeps shapes and types, and invents no label.

    Raises:
        BrokenPromiseError: a promise that is not kept, in a sentence.
    """
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (height, width, channels), dtype=np.uint8)
    labels = random.integers(2, 5, (height, width), dtype=np.uint8)
    border = random.random((height, width), dtype=np.float32)
    checked = CheckedTransform(transform, type(transform).__name__)
    seeds = range(8)
    try:
        forwards = [checked(image, labels, border, seed=seed) for seed in seeds]
        backwards = [checked(image, labels, border, seed=seed) for seed in reversed(seeds)][::-1]
        without = [checked(image, labels, seed=seed) for seed in seeds]
    except ConfigError as error:
        promise(False, str(error))
    for seed, one, again, two in zip(seeds, forwards, backwards, without, strict=True):
        same = all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
        promise(same, f"transform: seed {seed} gave two results: it depends on when it is asked.")
        promise(
            all(np.array_equal(a, b) for a, b in zip(one[:2], two, strict=True)),
            f"transform: seed {seed} gave another crop where there is no border map.",
        )
        invented = sorted({*np.unique(one[1]).tolist()} - {2, 3, 4, IGNORED})
        promise(not invented, f"transform: seed {seed} made the labels {invented}, which no pixel had.")


def check_metric(metric: Metric) -> None:
    """Check that a metric is a function of the counts alone, is never NaN, and leaves the counts as they are.

    Raises:
        BrokenPromiseError: a promise that is not kept, in a sentence.
    """
    counts = torch.tensor([[50, 3, 0], [7, 20, 1], [0, 0, 0]])
    kept = counts.clone()
    one, other = metric(counts), metric(kept.clone())
    promise(torch.equal(counts, kept), "metric: it changes the confusion matrix.")
    promise(
        isinstance(one, float) and one == other,
        f"metric: of one matrix it gave {one!r} and {other!r}, expected one float.",
    )
    empty = metric(torch.zeros(3, 3, dtype=torch.int64))
    promise(empty is None or empty == empty, "metric: it is NaN where nothing was counted, expected None.")


def check_course(make: Callable[[float, int], Course], *, learning_rate: float = 1e-3, total_steps: int = 50) -> None:
    """Check that a course is a function of the step alone: in any order, asked twice, made anew.

    Args:
        make: (learning rate, steps) -> the course.

    Raises:
        BrokenPromiseError: a promise that is not kept, in a sentence.
    """
    course, steps = make(learning_rate, total_steps), range(1, total_steps + 1)
    forwards = [course(step) for step in steps]
    backwards = [make(learning_rate, total_steps)(step) for step in reversed(steps)][::-1]
    for step, one, other in zip(steps, forwards, backwards, strict=True):
        promise(
            one == other == course(step), f"course: step {step} gave {one} and {other}: it depends on when it is asked."
        )
        promise(
            0 <= one[0] < float("inf") and 0 <= one[1] < 1,
            f"course: step {step} gave {one}, no learning rate and beta1.",
        )
