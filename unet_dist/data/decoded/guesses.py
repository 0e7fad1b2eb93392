"""What the ids of a data set may mean where nobody named the classes.

Owns the findings and their remedies. Must not know how masks are read.
"""

from __future__ import annotations

import numpy as np

from unet_dist.data.decoded.labels import explain_gaps

_FEW_OBJECTS, _COUNTS_OF_OBJECTS = 5, 3


def explain_ids(counts: np.ndarray) -> str | None:
    """Say what the ids of masks may mean beside classes, a finding and its remedy; None where they look like classes.

    Args:
        counts: (images, n), pixels of each id.
    """
    if np.flatnonzero(counts.sum(axis=0)).tolist() == [0]:
        return (
            "its masks hold the id 0 alone, so that there is nothing to learn. Check that they are the masks; if other classes are "
            "merely rare, name all of them: --num_classes 2."
        )
    return explain_gaps(counts.sum(axis=0)) or _explain_numbers(counts)


def _explain_numbers(counts: np.ndarray) -> str | None:
    """Recognise objects that are numbered in each image: its ids are 1, 2, 3 ... up to a number of its own.

    assumption: classes do not do so where they are more than five, and end at three numbers or more.
    """
    ids = counts[:, 1:] > 0
    last = np.where(ids.any(axis=1), ids.shape[1] - ids[:, ::-1].argmax(axis=1), 0)
    is_numbered = not (ids.sum(axis=1) != last).any()
    if not is_numbered or last.max(initial=0) <= _FEW_OBJECTS or len(np.unique(last)) < _COUNTS_OF_OBJECTS:
        return None
    return (
        f"the ids of each mask are 1, 2, 3 ... up to a number of its own ({last.min()} to {last.max()}), as where they number "
        f"objects. If they do, set --label_map '{{0: 0, 1-65535: 1}}'; if these are classes, --num_classes {last.max() + 1}."
    )
