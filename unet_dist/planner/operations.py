"""How floating-point operations are counted: as torch does, and right for convolutions of groups as well.

torch 2.13 counts the weights' gradient of a convolution as if every output channel saw every input channel: for one of
C groups, as SegFormer and MobileNet have it, C times what it takes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import flop_registry

_BACKWARD = torch.ops.aten.convolution_backward


def _convolution_backward(*args: Any, out_val: Any, **keys: Any) -> int:
    *before, groups, output_mask = args
    of_input, of_weight, _ = output_mask
    count = flop_registry[_BACKWARD]
    flops = 0
    for mask, parts in (([of_input, False, False], 1), ([False, of_weight, False], groups)):
        if any(mask):
            flops += int(count(*before, groups, mask, **keys, out_val=out_val)) // parts
    return flops


_convolution_backward._get_raw = True  # type: ignore[attr-defined]  # takes tensors, not shapes

OWN_COUNTS = {_BACKWARD: _convolution_backward}
"""For FlopCounterMode, beside torch's own."""
COUNTS = {**flop_registry, **OWN_COUNTS}
