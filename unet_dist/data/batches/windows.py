"""A micro-batch of windows on its way to the device: the pixels read for it, and what the device still does to them.

Owns the order of what the device does: look up, blur, recolour, add noise, paste. Must not know how a step is cut.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unet_dist.data.batches.colour import Colours, recolour
from unet_dist.data.batches.geometry import Sources, look_up
from unet_dist.data.batches.mixing import paste
from unet_dist.data.batches.texture import Textures, add_noise, blur
from unet_dist.machine.uploading import uploading


@dataclass(frozen=True)
class WindowBatch:
    """Windows of one shape that are computed at once: whole crops, or tiles of them.

    Attributes:
        windows: (n, h, w, C) of the images' type; with sources (P, C), the pixels that they are looked up in on the device.
        labels: (n, h', w') uint8 or uint16, all bits set where a pixel counts nowhere or in another window.
        keys: (n, 3) int64: the sample's position in the run, and the window's row and column in it, in strides.
        ids: the samples' ids, one per window.
        borders: (n, h', w') float32, the extra weight of a pixel; None without border weights.
        colours: the changes of light and colour still to be made to the windows; None: none.
        sources: where the windows' pixels come from; None: they are there.
        textures: how the windows are still to be blurred and noised; None: not at all.
        pasted: parts of other crops that still cover some of the windows; their labels do already. None: none do.
    """

    windows: Tensor
    labels: Tensor
    keys: Tensor
    ids: list[str]
    borders: Tensor | None = None
    colours: Colours | None = None
    sources: Sources | None = None
    textures: Textures | None = None
    pasted: Pasted | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """How many windows, and their height and width."""
        if self.sources is None:
            return self.windows.shape[0], self.windows.shape[1], self.windows.shape[2]
        margin = 0 if self.textures is None else self.textures.margin
        height, width = self.sources.rows.shape[2] - 2 * margin, self.sources.cols.shape[3] - 2 * margin
        return len(self.labels), height, width

    def on(self, device: torch.device) -> WindowBatch:
        """The same on a device, ready for the network; a copy from page-locked memory does not wait."""
        with uploading(device) as upload:
            there = self._moved(upload)
        windows = there._shown()
        if there.pasted is not None:
            windows = paste(windows, there.pasted.batch._shown(), there.pasted.at, there.pasted.masks)
        return WindowBatch(windows, there.labels, there.keys, self.ids, there.borders)

    def _shown(self) -> Tensor:
        """What the windows show before others cover them: (n, h, w, C)."""
        windows = self.windows
        if self.sources is not None:
            windows = look_up(windows, self.sources)
        if self.textures is not None:
            windows = blur(windows, self.textures)
        if self.colours is not None:
            windows = recolour(windows, self.colours)
        if self.textures is not None:
            windows = add_noise(windows, self.textures)
        return windows

    def pin_memory(self) -> WindowBatch:
        """The same in page-locked memory, from which a copy to a GPU does not wait; what lies there stays."""
        return self._moved(lambda tensor: tensor if tensor.is_pinned() else tensor.pin_memory())

    def _moved(self, move: Callable[[Tensor], Tensor]) -> WindowBatch:
        """The same of other tensors."""
        return WindowBatch(
            move(self.windows),
            move(self.labels),
            move(self.keys),
            self.ids,
            None if self.borders is None else move(self.borders),
            None if self.colours is None else self.colours.moved(move),
            None if self.sources is None else Sources(*map(move, self.sources)),
            None if self.textures is None else self.textures.moved(move),
            None
            if self.pasted is None
            else Pasted(self.pasted.batch._moved(move), move(self.pasted.at), move(self.pasted.masks)),
        )


@dataclass(frozen=True)
class Pasted:
    """Parts of other crops that cover windows.

    Attributes:
        batch: the other crops' windows.
        at: (m,) int64, the window that each of them covers.
        masks: (m, h, w) bool, where it does.
    """

    batch: WindowBatch
    at: Tensor
    masks: Tensor
