"""The losses against arithmetic done by hand."""

from __future__ import annotations

import math

import pytest
import torch

from capo_core.training.loss import negative_log_likelihood, pair_margins, pair_weights, sigmoid_loss


def test_margin_is_the_difference_of_log_ratios() -> None:
    # ratios: −1 − (−1.5) = 0.5 and −2 − (−1) = −1 and −4 − (−4) = 0; margins 0.5 + 1 = 1.5 and 0.5 − 0 = 0.5
    policy, reference = torch.tensor([-1.0, -2.0, -4.0]), torch.tensor([-1.5, -1.0, -4.0])
    margins = pair_margins(policy, reference, torch.tensor([0, 0]), torch.tensor([1, 2]))
    assert margins.tolist() == [1.5, 0.5]


def test_sigmoid_loss_averages_pairs_within_their_group_first() -> None:
    # β · margin = 1, 0 (group 0) and −1 (group 1). −log σ(1) = log(1 + e⁻¹) = 0.3132617, −log σ(0) = log 2,
    # −log σ(−1) = log(1 + e) = 1.3132617. Sum over groups: (0.3132617 + 0.6931472) / 2 + 1.3132617 = 1.8164661
    loss = sigmoid_loss(torch.tensor([2.0, 0.0, -2.0]), 0.5, torch.tensor([0, 0, 1]), 2)
    expected = (math.log(1 + math.exp(-1)) + math.log(2)) / 2 + math.log(1 + math.e)
    assert float(loss) == pytest.approx(expected, abs=1e-6)
    assert expected == pytest.approx(1.8164661, abs=1e-6)


def test_loss_is_log_two_per_group_where_policy_equals_reference() -> None:
    loss = sigmoid_loss(torch.zeros(4), 0.1, torch.tensor([0, 0, 0, 1]), 2)
    assert float(loss) == pytest.approx(2 * math.log(2))


def test_a_group_without_pairs_adds_nothing() -> None:
    two = sigmoid_loss(torch.tensor([1.0]), 1.0, torch.tensor([1]), 2)
    one = sigmoid_loss(torch.tensor([1.0]), 1.0, torch.tensor([0]), 1)
    assert float(two) == float(one) == pytest.approx(math.log(1 + math.exp(-1)))


def test_no_pairs_at_all_is_zero_and_not_nan() -> None:
    none = torch.zeros(0, dtype=torch.long)
    assert float(sigmoid_loss(torch.zeros(0), 0.1, none, 3)) == 0.0


def test_pair_weights_sum_to_one_per_group() -> None:
    # three pairs in group 0: a third each; one pair in group 2: 1
    weights = pair_weights(torch.tensor([0, 2, 0, 0]), 3, torch.float64)
    assert weights.tolist() == pytest.approx([1 / 3, 1.0, 1 / 3, 1 / 3])


def test_a_large_margin_is_stable_both_ways() -> None:
    # −log σ(1000) = 0 and −log σ(−1000) = 1000, neither inf nor NaN
    loss = sigmoid_loss(torch.tensor([1000.0, -1000.0]), 1.0, torch.tensor([0, 1]), 2)
    assert float(loss) == 1000.0


def test_negative_log_likelihood_counts_chosen_tokens_only() -> None:
    # −(−1 − 3) = 4; the token of the rejected response (−2) does not count
    loss = negative_log_likelihood(torch.tensor([-1.0, -2.0, -3.0]), torch.tensor([True, False, True]))
    assert float(loss) == 4.0
