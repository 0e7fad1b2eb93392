"""Steps that are not finite: masked on the device, so that no state is damaged, and named once the host knows.

Owns the flag of the first such step and the losses of the latest ones. Nothing here waits for the device but `check`.
"""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor, nn

from unet_dist.errors import UnetDistError
from unet_dist.processes.group import Processes

# fp16: that many steps skipped in a row halve the largest loss scale (65536) below what any finite gradient needs.
MAX_OVERFLOWS_IN_A_ROW = 40


class DivergedError(UnetDistError):
    """The loss or its gradient is no longer finite."""


class FiniteWatch:
    """Watches the gradients of a run.

    Attributes:
        bad_step: () float64 on the device: the first step that was not finite, 0 for none. Every later one is masked.
    """

    def __init__(self, device: torch.device) -> None:
        self.bad_step = torch.zeros((), dtype=torch.float64, device=device)
        self._overflows_in_a_row = torch.zeros((), device=device)
        self._overflows = torch.zeros((), device=device)
        self._recent: deque[tuple[int, list[str], Tensor]] = deque(maxlen=3)

    def note(self, step: int, ids: list[str], losses: Tensor) -> None:
        """Remember the loss of each window of a step, (n,) or (n, T) on the device."""
        self._recent.append((step, ids, losses))

    def judge(self, step: int, norm: Tensor, *, is_scaled: bool) -> Tensor:
        """Look at the norm of a step's gradient.

        Args:
            is_scaled: whether a loss scaler skips the step where it overflows: it may, a few times in a row.

        Returns:
            () bool on the device: the step does not count.
        """
        is_fine = norm < torch.inf  # a norm that is not a number is not below it
        if not is_scaled:
            # Once there is a bad step, all that follow are fine enough: it is the first that is kept.
            self.bad_step.masked_fill_(torch.logical_or(is_fine, self.bad_step).logical_not_(), float(step))
            return self.bad_step > 0
        is_masked = is_fine.logical_not()
        self._overflows += is_masked
        self._overflows_in_a_row = (self._overflows_in_a_row + 1) * is_masked
        is_bad = self._overflows_in_a_row >= MAX_OVERFLOWS_IN_A_ROW
        self.bad_step = torch.where((self.bad_step == 0) & is_bad, float(step), self.bad_step)
        return is_masked | (self.bad_step > 0)

    def take_overflows(self) -> int:
        """Steps that the loss scaler skipped since the last call; waits for the device."""
        overflows = int(self._overflows.item())
        self._overflows.zero_()
        return overflows

    def check(self) -> int:
        """The first step that was not finite, 0 for none; waits for the device."""
        return int(self.bad_step.item())

    def culprit(self, bad_step: int, processes: Processes) -> str:
        """Describe a step that was not finite: by the samples whose loss was not, or by the gradient alone. All processes ask."""
        mine = [
            f"{name} ({value})"
            for step, ids, losses in self._recent
            if step == bad_step
            for name, value in zip(ids, losses.reshape(len(ids), -1).sum(1).tolist(), strict=True)
            if not abs(value) < float("inf")
        ]
        # A sample once, however many of its tiles are not finite.
        found = sorted({text for texts in processes.gather(mine) for text in texts})
        if not found:
            return "the gradient, though every sample's loss is finite"
        return f"the loss of {', '.join(found[:8])}" + (f" and {len(found) - 8} more" if len(found) > 8 else "")


def all_finite(model: nn.Module) -> bool:
    """Whether every parameter and buffer is finite; waits for the device."""
    return all(bool(torch.isfinite(t).all()) for t in model.state_dict().values() if t.is_floating_point())
