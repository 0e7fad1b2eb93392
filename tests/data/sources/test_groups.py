"""Groups are never torn, folds are alike in their classes, and both are pure functions of ids, counts and seed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unet_dist.data.sources.groups import Grouping, cut_groups, deal_folds, groups_of, torn_groups
from unet_dist.data.sources.splits import FRACTIONS, assign_splits
from unet_dist.errors import DataError


def test_a_group_is_what_a_pattern_says() -> None:
    ids = ["0001TP_006690", "0001TP_006720", "0016E5_07959"]
    assert groups_of(ids, "sequence") == groups_of(ids, r"\w+_") == ["0001TP_", "0001TP_", "0016E5_"]
    assert groups_of(ids, r"\d+([A-Z])") == ["T", "T", "E"]
    assert groups_of(ids, None) == ids
    assert groups_of(["a12", "12", "b"], "sequence") == ["a", "", "b"]
    assert groups_of(["anna/mr/1", "anna/mr/2", "ben/1", "3"], "folder") == ["anna/mr/", "anna/mr/", "ben/", ""]
    with pytest.raises(
        DataError, match=r"group_by: got '0001', which does not match 1 of 3 ids, such as '0016E5_07959'"
    ):
        groups_of(ids, "0001")


@given(st.lists(st.integers(1, 9), min_size=3, max_size=30), st.integers(0, 2**40))
def test_no_group_is_torn_and_no_part_empty(sizes: list[int], seed: int) -> None:
    groups = [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]
    counts = [[position % 5, 3] for position in range(len(groups))]
    folds = deal_folds(groups, counts, 3, seed)
    for parts in (cut_groups(groups, FRACTIONS, seed), {str(number): fold for number, fold in enumerate(folds)}):
        assert sorted(position for part in parts.values() for position in part) == list(range(len(groups)))
        assert all(parts.values())
        assert torn_groups(groups, parts) == []


def test_torn_groups_are_named() -> None:
    assert torn_groups(["a", "b", "a", "c"], {"train": [0, 1], "validation": [2, 3]}) == ["a"]


def test_parts_have_the_proportions() -> None:
    groups = [f"g{number // 5}" for number in range(500)]
    parts = cut_groups(groups, FRACTIONS, 0)
    assert {name: len(part) for name, part in parts.items()} == {"train": 350, "validation": 50, "test": 100}
    assert cut_groups(groups, FRACTIONS, 0) == parts != cut_groups(groups, FRACTIONS, 1)


def test_folds_share_a_rare_class_out() -> None:
    groups = [f"g{number // 4}" for number in range(120)]
    # Six groups of thirty have the rare class.
    counts = [[1000, 50 if number // 4 < 6 else 0] for number in range(120)]
    for seed in range(5):
        folds = deal_folds(groups, counts, 3, seed)
        assert [len(fold) for fold in folds] == [40, 40, 40]
        assert [sum(counts[position][1] for position in fold) for fold in folds] == [400, 400, 400]


def test_every_sample_is_validated_in_one_fold_and_test_in_none() -> None:
    ids = [f"film{number // 10}_{number}" for number in range(60)]
    given_splits = {"train": 40, "validation": 10, "test": 10}
    counts = [[1, 1]] * 60
    validated: list[int] = []
    for fold in range(3):
        grouping = Grouping("sequence", 3, fold)
        splits = assign_splits(given_splits, 0, ids=ids, grouping=grouping, class_counts=counts)
        assert splits["test"] == list(range(50, 60))
        assert not set(splits["train"]) & set(splits["validation"])
        assert len(splits["train"]) + len(splits["validation"]) == 50
        validated += splits["validation"]
    assert sorted(validated) == list(range(50))


def test_a_source_without_splits_is_cut_by_groups() -> None:
    ids = [f"film{number // 10}_{number}" for number in range(100)]
    splits = assign_splits({"train": 100}, 0, ids=ids, grouping=Grouping("sequence"))
    assert {name: len(part) for name, part in splits.items()} == {"train": 70, "validation": 10, "test": 20}
    assert torn_groups(groups_of(ids, "sequence"), splits) == []
    assert torn_groups(groups_of(ids, "sequence"), assign_splits({"train": 100}, 0)) != []
    with pytest.raises(DataError, match=r"group_by: got 1 group \(film0_\), expected 3 or more for cutting into"):
        assign_splits({"train": 10}, 0, ids=ids[:10], grouping=Grouping("sequence"))


def test_without_grouping_the_splits_are_as_ever() -> None:
    assert assign_splits({"train": 10}, 0) == {"train": [2, 3, 4, 5, 6, 8, 9], "validation": [1], "test": [0, 7]}
