"""The split is a pure function of (seed, number of samples), covers everything once, and leaves given splits alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unet_dist.data.sources.splits import FRACTIONS, assign_splits, canonical_split, cut, cut_sizes
from unet_dist.errors import DataError


@given(st.integers(3, 3000), st.integers(0, 2**40))
def test_every_sample_is_in_one_part_and_no_part_is_empty(num_samples, seed):
    parts = cut(num_samples, FRACTIONS, seed)
    assert sorted(position for part in parts.values() for position in part) == list(range(num_samples))
    for name, part in parts.items():
        assert part == sorted(part)
        assert len(part) >= 1
        assert abs(len(part) - num_samples * FRACTIONS[name] / 10) <= (1 if num_samples >= 10 else 2)


def test_the_reference_sizes():
    assert cut_sizes(1000, FRACTIONS) == {"train": 700, "validation": 100, "test": 200}
    assert cut_sizes(10, FRACTIONS) == {"train": 7, "validation": 1, "test": 2}
    assert cut_sizes(4, FRACTIONS) == {"train": 2, "validation": 1, "test": 1}


def test_the_cut_stays_the_same_for_ever():
    at_first = {"train": [2, 3, 4, 5, 6, 8, 9], "validation": [1], "test": [0, 7]}
    assert cut(10, FRACTIONS, seed=0) == at_first
    assert cut(10, FRACTIONS, seed=1) != at_first


def test_two_samples_cannot_be_cut():
    with pytest.raises(DataError, match=r"has 2 samples and no splits .* 7:1:2 .* at least 3\. Add samples"):
        assign_splits({"train": 2}, seed=0)


def test_given_splits_are_left_alone():
    assert assign_splits({"train": 3, "validation": 2}, seed=5) == {"train": [0, 1, 2], "validation": [3, 4]}
    assert assign_splits({"validation": 2, "test": 1}, seed=5) == {"validation": [0, 1], "test": [2]}


def test_a_missing_validation_comes_out_of_train_and_never_out_of_test():
    splits = assign_splits({"train": 16, "test": 4}, seed=0)
    assert splits["test"] == [16, 17, 18, 19]
    assert len(splits["validation"]) == 2
    assert sorted(splits["train"] + splits["validation"]) == list(range(16))


def test_names_of_splits():
    assert [canonical_split(name) for name in ("val", "Valid", "dev", "testing", "extra")] == [
        "validation",
        "validation",
        "validation",
        "test",
        "extra",
    ]
