"""Averages over classes and seeds: one rule for tables and cards."""

import pytest

from tabzoo.scores.averages import averages_by_seed


def test_averages_are_over_the_seeds_that_all_classes_have() -> None:
    assert averages_by_seed({"a": {0: 0.9, 1: 0.5}, "b": {0: 0.7}}) == [pytest.approx(0.8)]
    assert averages_by_seed({"a": {1: 0.5, 0: 0.9}, "b": {0: 0.7, 1: 0.1}}) == pytest.approx([0.8, 0.3])
    assert averages_by_seed({"a": {0: 0.9, 1: None}, "b": {0: 0.7, 1: 0.1}}) == pytest.approx([0.8])
    assert averages_by_seed({"a": {0: 0.9}, "b": {1: 0.7}}) == averages_by_seed({}) == []
