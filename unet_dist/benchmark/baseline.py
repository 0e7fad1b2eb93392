"""The loop that is usually written for this task: what ours is compared with.

Owns a plain U-Net, a data set that decodes both files of an item and augments it with albumentations, a DataLoader, plain AdamW
and OneCycleLR, in the loop that tutorials have. On purpose it shares no code with the toolkit.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

# ImageNet's, as everybody has them.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PlainUNet(nn.Module):
    """Ronneberger et al. 2015, as it is usually written: (N, C, H, W) -> (N, K, H - 184, W - 184) at depth 4."""

    def __init__(self, in_channels: int, num_classes: int, base_channels: int, depth: int) -> None:
        super().__init__()
        widths = [base_channels * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(_double(i, o) for i, o in zip([in_channels, *widths], widths, strict=False))
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in widths[-2::-1])
        self.merge = nn.ModuleList(_double(2 * w, w) for w in widths[-2::-1])
        self.head = nn.Conv2d(base_channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) images -> (N, K, h, w) logits."""
        skips = []
        for block in self.down[:-1]:
            x = block(x)
            skips.append(x)
            x = self.pool(x)
        x = self.down[-1](x)
        for up, merge in zip(self.up, self.merge, strict=True):
            x = up(x)
            x = merge(torch.cat([_centre(skips.pop(), x.shape[2], x.shape[3]), x], dim=1))
        return self.head(x)


def _double(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, 3),
        nn.ReLU(inplace=True),
    )


def _centre(x: Tensor, height: int, width: int) -> Tensor:
    top, left = (x.shape[-2] - height) // 2, (x.shape[-1] - width) // 2
    return x[..., top : top + height, left : left + width]


class DecodedPairs(Dataset[tuple[Tensor, Tensor]]):
    """Decodes image and mask of an item, crops, flips and normalises: what `__getitem__` does everywhere.

    Args:
        folder: of NAME.jpg and NAME.png pairs.
        side: of the crop, px.
    """

    def __init__(self, folder: Path, side: int) -> None:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it looks for updates on the network at import
        import albumentations  # here: all else of bench, and the check of a GPU, does without it

        self.paths = sorted(folder.glob("*.jpg"))
        self.transform = albumentations.Compose(
            [
                albumentations.PadIfNeeded(side, side),
                albumentations.RandomCrop(side, side),
                albumentations.HorizontalFlip(p=0.5),
                albumentations.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = np.array(Image.open(self.paths[index]).convert("RGB"))
        mask = np.array(Image.open(self.paths[index].with_suffix(".png")))
        pair = self.transform(image=image, mask=mask)
        pixels = torch.from_numpy(pair["image"].transpose(2, 0, 1).copy())  # (3, side, side) float32
        return pixels, torch.from_numpy(pair["mask"]).long()


class Baseline:
    """The loop, in float32.

    Args:
        folder: of the pairs.
        options: in_channels, num_classes, base_channels and depth of the network.
        side: of the crop, px.
        batch_size: crops of a step.
        device: where it trains.
        num_workers: of the DataLoader.
    """

    def __init__(
        self,
        folder: Path,
        options: dict[str, int],
        *,
        side: int,
        batch_size: int,
        device: torch.device,
        num_workers: int = 0,
        learning_rate: float = 1e-5,
    ) -> None:
        self.pairs = DecodedPairs(folder, side)
        self._loader: DataLoader[Any] = DataLoader(
            self.pairs, batch_size=batch_size, shuffle=True, num_workers=num_workers, drop_last=True
        )
        self._device = device
        self._model = PlainUNet(**options).to(device).train()
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=learning_rate)
        self._scheduler = torch.optim.lr_scheduler.OneCycleLR(self._optimizer, learning_rate, total_steps=10**6)
        self._criterion = nn.CrossEntropyLoss(ignore_index=255)

    def seconds(self, count: int) -> float:
        """Seconds a step, of `count` steps in a row after one; data is read as the loop goes."""
        batches = self._batches()
        self._step(*next(batches))
        started = time.perf_counter()
        for _ in range(count):
            self._step(*next(batches))
        return (time.perf_counter() - started) / count

    def read_seconds(self, count: int) -> float:
        """Seconds in which the DataLoader alone gives one step's crops, of `count` in a row after one."""
        batches = self._batches()
        next(batches)
        started = time.perf_counter()
        for _ in range(count):
            next(batches)
        return (time.perf_counter() - started) / count

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from self._loader

    def _step(self, images: Tensor, masks: Tensor) -> float:
        images, masks = images.to(self._device), masks.to(self._device)
        self._optimizer.zero_grad()
        logits = self._model(images)
        loss = self._criterion(logits, _centre(masks, logits.shape[2], logits.shape[3]))
        loss.backward()
        self._optimizer.step()
        self._scheduler.step()
        return float(loss.item())  # for the progress bar: the device is waited for at every step


def write_pairs(folder: Path, pairs: Iterator[tuple[np.ndarray, np.ndarray]]) -> None:
    """Write images (H, W, C) and masks (H, W), uint8, as the files that the baseline decodes: JPEG and PNG."""
    folder.mkdir(parents=True)
    for number, (image, mask) in enumerate(pairs):
        pixels = image if image.shape[2] == 3 else np.repeat(image[:, :, :1], 3, axis=2)
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / f"{number:04d}.jpg", quality=90)
        Image.fromarray(np.ascontiguousarray(mask)).save(folder / f"{number:04d}.png")
