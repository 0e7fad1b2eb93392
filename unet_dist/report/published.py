"""The figures that were published for the reference task, to stand beside ours.

Owns the numbers and to which of our runs each may be compared; measured by others, never by this toolkit. Data set:
segments/sidewalk-semantic, split 7:1:2; mean IoU of its test split as published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DATA_SET = "segments/sidewalk-semantic"


@dataclass(frozen=True)
class Published:
    """One published row.

    Attributes:
        model: as it is called there.
        input_size: side of its input window, px; None for the fine-tuned transformers.
        patches: of a 1080x1920 image, rows x columns.
        steps: of training; None where it is not said.
        remark: what stands at the figure, for whoever would lean on it.
    """

    model: str
    miou: float
    input_size: int | None = None
    patches: str | None = None
    steps: int | None = None
    checkpoint: str | None = None
    remark: str = ""

    @property
    def label(self) -> str:
        """What tells the row from the others, and the remark."""
        size = "" if self.input_size is None else f", input {self.input_size}"
        steps = "" if self.steps is None else f", {self.steps:,} steps"
        return f"{self.model}{size}{steps}" + (f" ({self.remark})" if self.remark else "")


PUBLISHED = (
    Published("U-Net", 0.1546, 572, "3x5", 2000),
    Published("U-Net", 0.1681, 668, "3x4", 2000),
    Published("U-Net", 0.1715, 724, "2x4", 2000),
    Published("U-Net", 0.2005, 724, "2x4", 6000),
    Published("segformer-b0, fine-tuned", 0.1135, checkpoint="nielsr/sidewalk-semantic-demo"),
    Published(
        "segformer-b3, fine-tuned", 0.4345, checkpoint="segments-tobias/segformer-b3-finetuned-segments-sidewalk"
    ),
    # assumption: the model's own card may give 0.4317 as mean IoU and 0.5168 as mean accuracy.
    Published(
        "segformer-b4, fine-tuned",
        0.5168,
        checkpoint="nickmuchi/segformer-b4-finetuned-segments-sidewalk",
        remark="as quoted; split and metric not verified",
    ),
)

_ROUNDED_UP = {732: 724}
"""The published 724 is no side the network takes: a run at 724 trains at 732."""


def published_for(config: Mapping[str, Any]) -> Published | None:
    """The published row of the same model at the same input size, and of it the one whose steps are the nearest.

    Args:
        config: the flat keys of a run.
    """
    model = str(config.get("model", "unet"))
    side = config.get("input_size")
    if model == "unet":
        side = _ROUNDED_UP.get(side, side) if isinstance(side, int) else None
        rows = [row for row in PUBLISHED if row.model == "U-Net" and row.input_size == side]
    else:
        named = f"{model} {config.get('init_from') or ''}".lower()
        rows = [
            row for row in PUBLISHED if row.checkpoint and (row.checkpoint.lower() in named or _variant(row) in named)
        ]
    steps = int(config.get("total_steps") or 0)
    return min(rows, key=lambda row: abs((row.steps or 0) - steps)) if rows else None


def is_same_data(config: Mapping[str, Any]) -> bool:
    """Whether a run's data set is the one that the figures were published for."""
    return DATA_SET.rpartition("/")[2] in str(config.get("data_path", ""))


def _variant(row: Published) -> str:
    """segformer-b3 of "segformer-b3, fine-tuned"."""
    return row.model.partition(",")[0]
