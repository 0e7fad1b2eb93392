"""The classes of one network under the names of another data set.

Owns which class of a network is which of the data's, by name, and a network that answers in the data's order. A published
checkpoint numbers its classes as it likes; comparing numbers would compare roads with trees.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unet_dist.errors import DataError
from unet_dist.models.answers import THRESHOLD, answers_of
from unet_dist.models.contract import Network, pixels_of
from unet_dist.tiling.geometry import Locality, WindowSizes


@dataclass(frozen=True)
class Alignment:
    """Which of a network's classes is which of the data's.

    Attributes:
        source: for each class of the data the network's, None where it has none.
        only_data: classes that the network can never answer.
        only_model: classes of the network that are no answer here.
    """

    source: list[int | None]
    only_data: list[str]
    only_model: list[str]

    @property
    def is_identity(self) -> bool:
        """Whether nothing is to be done."""
        return not self.only_model and self.source == list(range(len(self.source)))

    def told(self) -> str:
        """Describe the alignment in a sentence."""
        shared = sum(index is not None for index in self.source)
        text = f"Classes aligned by name: {shared} of {len(self.source)}"
        if self.only_data:
            text += f"; never answered, as the network lacks them: {', '.join(self.only_data)}"
        if self.only_model:
            text += f"; left out of its answers, as the data lack them: {', '.join(self.only_model)}"
        return text + "."


def align_names(theirs: Sequence[str], ours: Sequence[str]) -> Alignment:
    """Match the class names of a network with those of a data set; case, blanks, - and _ do not count.

    >>> align_names(["Sky", "flat_road"], ["flat-road", "sky", "car"]).source
    [1, 0, None]

    Raises:
        DataError: not one name is shared, or two names of one side mean the same.
    """
    keys, wanted = ([_key(name) for name in names] for names in (theirs, ours))
    for names, side in ((keys, "network"), (wanted, "data")):
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(
                f'The {side} has two classes "{twice}": they cannot be distinguished by name. Rename one of them.'
            )
    at = {name: index for index, name in enumerate(keys)}
    source = [at.get(name) for name in wanted]
    if all(index is None for index in source):
        raise DataError(
            f"The network and the data share no class by name. The network's: {_some(theirs)}. The data's: {_some(ours)}. Give "
            "the data the network's names in id2label.json, where they mean the same."
        )
    return Alignment(
        source,
        [name for name, index in zip(ours, source, strict=True) if index is None],
        [name for name, key in zip(theirs, keys, strict=True) if key not in set(wanted)],
    )


def has_plain_names(names: Sequence[str]) -> bool:
    """Say whether classes have nothing but numbers for names, as data sets and libraries give them where nobody named them."""
    return all(re.fullmatch(r"(class|label)?[ _-]?\d+", name.strip().casefold()) for name in names)


class AlignedClasses(nn.Module):
    """A network whose logits come in the order of a data set's classes; for prediction.

    Args:
        network: any of this package.
        class_names: the data's.
        ignore_index: the data's class that is no answer, or None.
    """

    def __init__(
        self, network: Network, alignment: Alignment, class_names: Sequence[str], ignore_index: int | None
    ) -> None:
        super().__init__()
        self.network = network
        self.class_names = list(class_names)
        self.num_classes = len(self.class_names)
        self.ignore_index = ignore_index
        self.in_channels: int = network.in_channels
        self.mean: Sequence[float] = network.mean
        self.std: Sequence[float] = network.std
        self.resize_to: Sequence[int] | None = network.resize_to
        self.window_sizes: WindowSizes = network.window_sizes
        self.pixels = pixels_of(network)
        thresholds = answers_of(network).thresholds
        self.thresholds = thresholds and [THRESHOLD if i is None else thresholds[i] for i in alignment.source]
        absent = [index is None for index in alignment.source]
        self.register_buffer("source", torch.tensor([index or 0 for index in alignment.source]), persistent=False)
        self.register_buffer("absent", torch.tensor(absent)[:, None, None], persistent=False)

    @property
    def locality(self) -> Locality | None:
        """The network's."""
        locality: Locality | None = self.network.locality
        return locality

    @property
    def locality_obstacle(self) -> str | None:
        """The network's."""
        obstacle: str | None = self.network.locality_obstacle
        return obstacle

    def config(self) -> None:
        """None: it is of one data set."""

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits (N, num_classes, h, w); of a class that the network lacks they are never the largest."""
        return self._align(self.network(images))

    def scaled_logits(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits of whole images at another size: the network's own."""
        return self._align(self.network.scaled_logits(images, size))

    def _align(self, logits: Tensor) -> Tensor:
        # Half of the least number, and not -inf: interpolated between pixels, 0 times -inf would be no number.
        least = torch.finfo(logits.dtype).min / 2
        return logits.index_select(1, self.get_buffer("source")).masked_fill(self.get_buffer("absent"), least)


def _key(name: str) -> str:
    return re.sub(r"[\s_-]+", "-", name.strip()).casefold()


def _some(names: Sequence[str], *, limit: int = 6) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
