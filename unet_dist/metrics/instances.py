"""How well a border separates objects: the scores of the ISBI 2012 challenge.

Owns the definitions. An object is a connected component (4 neighbours) of everything that is not border. Only pixels that the
truth gives to an object count (foreground-restricted). The proposal's border is thinned first, as its width is no merit: the
challenge leaves lines of 1 px, here each border pixel goes to the nearest object.

Source: Arganda-Carreras et al. 2015, "Crowdsourcing the creation of image segmentation algorithms for connectomics", equations
2 to 6 with alpha = 0.5; the maximum over thresholds as in the challenge's own script.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unet_dist.data.decoded.labels import ignored_in

THRESHOLDS = tuple(tenth / 10 for tenth in range(1, 10))
"""Border probabilities from which on a pixel is border. The challenge's are 0 to 1 by 0.1; at 0 and 1 all or none is border."""


@dataclass(frozen=True)
class InstanceScores:
    """Scores of images, averaged over them, at the threshold that is best for each.

    Attributes:
        v_rand: F-score of pairs of pixels that are in one object, 1 the best.
        v_info: F-score of the information that the two segmentations share, 1 the best.
        rand_threshold, info_threshold: the border probabilities these were reached at.
    """

    v_rand: float
    rand_threshold: float
    v_info: float
    info_threshold: float

    @classmethod
    def of(cls, table: np.ndarray) -> InstanceScores:
        """Choose the thresholds: from (N, T, 2), V_rand and V_info of N images at each of the T THRESHOLDS."""
        means = table.mean(axis=0)  # (T, 2)
        rand, info = means.argmax(axis=0)
        return cls(float(means[rand, 0]), THRESHOLDS[rand], float(means[info, 1]), THRESHOLDS[info])

    def record(self) -> dict[str, Any]:
        """What evaluation-SPLIT.json holds of them."""
        return {
            "v_rand": self.v_rand,
            "v_rand_threshold": self.rand_threshold,
            "v_info": self.v_info,
            "v_info_threshold": self.info_threshold,
        }


def score_image(border: np.ndarray, label: np.ndarray, border_class: int) -> np.ndarray:
    """Score an image at every threshold.

    Args:
        border: (H, W), the probability of the border class.
        label: (H, W) uint8 or uint16, all bits set where a pixel counts nowhere.
        border_class: its class id.

    Returns:
        (T, 2) float64: V_rand and V_info at each of THRESHOLDS.
    """
    from scipy import ndimage  # slow to import, and most runs need none

    is_object = (label != border_class) & (label != ignored_in(label.dtype))
    truth, _ = ndimage.label(is_object)
    rows: list[Sequence[float]] = []
    for threshold in THRESHOLDS:
        proposal = thin(border < threshold)
        rows.append(score_segments(proposal[is_object], truth[is_object]))
    return np.array(rows, dtype=np.float64)


def thin(is_inside: np.ndarray) -> np.ndarray:
    """Number the connected components of (H, W) bool from 1, and give every other pixel to the nearest; all 0 without any."""
    from scipy import ndimage

    segments, count = ndimage.label(is_inside)
    if not count:
        return segments
    nearest = ndimage.distance_transform_edt(~is_inside, return_distances=False, return_indices=True)
    return segments[tuple(nearest)]


def score_segments(proposal: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Compute V_rand and V_info of two numberings of the same n pixels, (n,) each; 1 where there is no pixel."""
    if not truth.size:
        return 1.0, 1.0
    pairs = proposal.astype(np.int64) * (int(truth.max()) + 1) + truth
    joint, ours, theirs = (np.unique(ids, return_counts=True)[1] / truth.size for ids in (pairs, proposal, truth))
    v_rand = 2 * np.square(joint).sum() / (np.square(ours).sum() + np.square(theirs).sum())
    entropies = [-(shares * np.log(shares)).sum() for shares in (joint, ours, theirs)]
    shared = entropies[1] + entropies[2] - entropies[0]
    both = entropies[1] + entropies[2]
    return float(v_rand), float(2 * shared / both) if both > 0 else 1.0
