"""The losses against arithmetic done by hand, against TRL's own code, and by what must not change them."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import one_thread, tiny, tiny_tokenizer
from transformers import AutoModelForCausalLM
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from capo_core.errors import ConfigError
from capo_core.quiet import quiet_libraries
from capo_core.training.loss import LOSSES, negative_log_likelihood, preference_loss
from schemas.artifacts import ModelRef
from schemas.section import PreferenceLoss

__all__ = ["one_thread", "tiny"]

NAMES: tuple[PreferenceLoss, ...] = get_args(PreferenceLoss)
TRL_NAMES = tuple(name for name in NAMES if name != "plackett_luce")
SMOOTHING = {"robust": 0.1}

# Two groups, β = .5. Group 0: r_c = 2, rejected 0 and −2 with weights 3/4 and 1/4, lengths 2, 4, 1.
# Group 1: r_c = −1, one rejected of ratio 1, lengths 1 and 2; the other place is padding.
RATIOS = torch.tensor([[2.0, 0.0, -2.0], [-1.0, 1.0, 0.0]], dtype=torch.float64)
WEIGHTS = torch.tensor([[0.75, 0.25], [1.0, 0.0]], dtype=torch.float64)
LENGTHS = torch.tensor([[2, 4, 1], [1, 2, 1]])


def softplus(x: float) -> float:
    """Return −log σ(−x) = log(1 + exp x)."""
    return math.log(1 + math.exp(x))


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# Margins β (r_c − r_j): 1 and 2; −1. Margins per token r_c / |y_c| − r_j / |y_j|: 1 − 0 = 1 and 1 − (−2) = 3;
# −1 − 1/2 = −3/2. Rewards β r: 1, 0, −1; −1/2, 1/2.
BY_HAND: dict[PreferenceLoss, tuple[float, float]] = {
    # .75 · .3132617 + .25 · .1269280 = .2666782; log(1 + e) = 1.3132617
    "sigmoid": (0.75 * softplus(-1) + 0.25 * softplus(-2), softplus(1)),
    # β times the margins per token: 1/2, 3/2; −3/4
    "sigmoid_norm": (0.75 * softplus(-0.5) + 0.25 * softplus(-1.5), softplus(0.75)),
    # 1 / (2β) = 1: (1 − 1)² = 0 and (3 − 1)² = 4, so 1; (−3/2 − 1)² = 25/4
    "ipo": (1.0, 6.25),
    # max(0, 1 − 1) = 0 and max(0, 1 − 2) = 0; 1 + 1 = 2
    "hinge": (0.0, 2.0),
    # ε = .1: (.9 · −log σ(m) + .1 · log σ(−m)) / .8, where log σ(−m) = −log(1 + exp m)
    "robust": (
        (0.75 * (0.9 * softplus(-1) - 0.1 * softplus(1)) + 0.25 * (0.9 * softplus(-2) - 0.1 * softplus(2))) / 0.8,
        (0.9 * softplus(1) - 0.1 * softplus(-1)) / 0.8,
    ),
    # 1 − σ(1) + .75 · σ(0) + .25 · σ(−1) = .2689414 + .375 + .0672354; 1 − σ(−1/2) + σ(1/2) = 2 · .6224593
    "apo_zero": (sigma(-1) + 0.375 + 0.25 * sigma(-1), 2 * sigma(0.5)),
    # n = 2, so that the rejected stand there 1.5 and .5 times: log(1 + 1.5 exp(−1) + .5 exp(−2)) = .4821; k = 1 again
    # is log(1 + e)
    "plackett_luce": (math.log(1 + 1.5 * math.exp(-1) + 0.5 * math.exp(-2)), softplus(1)),
}


def loss_of(name: PreferenceLoss, ratios: torch.Tensor, weights: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    return preference_loss(name, ratios, weights, lengths, beta=0.5, label_smoothing=SMOOTHING.get(name, 0.0))


def test_every_configurable_loss_exists() -> None:
    assert tuple(LOSSES) == NAMES
    assert tuple(BY_HAND) == NAMES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_each_loss_is_what_its_formula_gives_by_hand(
    name: PreferenceLoss, dtype: torch.dtype, tolerance: float
) -> None:
    loss = loss_of(name, RATIOS.to(dtype), WEIGHTS.to(dtype), LENGTHS)
    assert loss.dtype == dtype
    assert loss.tolist() == pytest.approx(BY_HAND[name], abs=tolerance)


def test_the_figures_written_beside_the_formulas_are_theirs() -> None:
    figures: dict[PreferenceLoss, tuple[float, float]] = {
        "sigmoid": (0.2666782, 1.3132617),
        "apo_zero": (0.7111768, 1.2449187),
        "plackett_luce": (0.4821, 1.3133),
    }
    for name, figure in figures.items():
        assert BY_HAND[name] == pytest.approx(figure, abs=5e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("k", [0, 2])
def test_a_group_without_rejected_has_no_loss_and_no_gradient(name: PreferenceLoss, k: int) -> None:
    ratios = torch.full((1, 1 + k), 3.0, requires_grad=True)
    loss = loss_of(name, ratios, torch.zeros(1, k), torch.ones(1, 1 + k))
    loss.sum().backward()
    assert loss.tolist() == [0.0]
    assert ratios.grad is not None
    assert ratios.grad.tolist() == [[0.0] * (1 + k)]


@pytest.mark.parametrize("name", ["sigmoid", "sigmoid_norm", "plackett_luce", "robust"])
def test_loss_is_known_where_policy_equals_reference(name: PreferenceLoss) -> None:
    # All margins are 0: −log σ(0) = log 2, for robust too, (.9 − .1) / .8 = 1 of it; the softmax of 1 in 4 gives log 4.
    loss = loss_of(name, torch.zeros(1, 4), torch.full((1, 3), 1 / 3), torch.full((1, 4), 5))
    assert loss.item() == pytest.approx(math.log(4 if name == "plackett_luce" else 2), abs=1e-6)


def test_robust_without_smoothing_is_sigmoid() -> None:
    robust = preference_loss("robust", RATIOS, WEIGHTS, LENGTHS, beta=0.5, label_smoothing=0.0)
    assert torch.equal(robust, preference_loss("sigmoid", RATIOS, WEIGHTS, LENGTHS, beta=0.5))


def test_the_mean_of_robust_over_flipped_pairs_is_sigmoid() -> None:
    # The defining property (arXiv 2403.00409): (1 − ε) robust(pair) + ε robust(flipped pair) = sigmoid(pair).
    ratios, weights, lengths = RATIOS[1:, :2], WEIGHTS[1:, :1], LENGTHS[1:, :2]
    pair, flipped = (loss_of("robust", one, weights, lengths) for one in (ratios, ratios.flip(1)))
    torch.testing.assert_close(0.9 * pair + 0.1 * flipped, loss_of("sigmoid", ratios, weights, lengths))


def test_plackett_luce_of_equal_weights_is_the_softmax_over_all_responses() -> None:
    ratios = torch.tensor([[0.3, -1.0, 2.0, 0.7]], dtype=torch.float64)
    loss = loss_of("plackett_luce", ratios, torch.full((1, 3), 1 / 3, dtype=torch.float64), torch.ones(1, 4))
    torch.testing.assert_close(loss, -torch.log_softmax(0.5 * ratios, dim=1)[:, 0])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_ratios_leave_loss_and_gradients_finite(name: PreferenceLoss, dtype: torch.dtype) -> None:
    big = 1e4
    rows = [[big, -big, -big], [-big, big, big], [big, big, -big], [-big, 0.0, big], [0.0, 0.0, 0.0]]
    ratios = torch.tensor(rows, dtype=dtype, requires_grad=True)
    loss = loss_of(name, ratios, torch.tensor([[0.5, 0.5]] * 4 + [[1.0, 0.0]], dtype=dtype), torch.ones(5, 3))
    loss.sum().backward()
    assert ratios.grad is not None
    assert torch.isfinite(loss).all()
    assert torch.isfinite(ratios.grad).all()


@pytest.mark.parametrize("name", ["sigmoid", "plackett_luce"])
def test_a_lost_pair_costs_its_margin(name: PreferenceLoss) -> None:
    # β (r_c − r_j) = −1000: log(1 + exp 1000) = 1000 in any precision, and with two such, equal ones, the softmax adds
    # log 2, which single precision still sees beside 1000 as .69315 ± 6e-5.
    loss = loss_of(name, torch.tensor([[0.0, 2000.0, 2000.0]]), torch.tensor([[0.5, 0.5]]), torch.ones(1, 3))
    assert loss.item() == pytest.approx(1000 + (math.log(2) if name == "plackett_luce" else 0), abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_the_derivatives(name: PreferenceLoss) -> None:
    # Off the kink of the hinge, where there is no derivative.
    ratios = (RATIOS + torch.tensor([0.1, 0.0, 0.0])).requires_grad_()
    assert torch.autograd.gradcheck(lambda r: loss_of(name, r, WEIGHTS, LENGTHS), (ratios,))


@st.composite
def groups(draw: st.DrawFn, min_k: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ratios, weights and lengths of one group with up to seven rejected, in float64."""
    k = draw(st.integers(min_k, 7))
    ratios = draw(st.lists(st.floats(-20, 20), min_size=1 + k, max_size=1 + k))
    weights = torch.tensor(draw(st.lists(st.floats(0.05, 1), min_size=k, max_size=k)), dtype=torch.float64)
    lengths = draw(st.lists(st.integers(1, 40), min_size=1 + k, max_size=1 + k))
    return torch.tensor([ratios], dtype=torch.float64), (weights / weights.sum())[None], torch.tensor([lengths])


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(group=groups(min_k=2), random=st.randoms(use_true_random=False))
def test_permuting_the_rejected_changes_nothing(name: PreferenceLoss, group: Any, random: Any) -> None:
    ratios, weights, lengths = group
    order = random.sample(range(weights.shape[1]), weights.shape[1])
    responses = [0, *(1 + j for j in order)]
    permuted = loss_of(name, ratios[:, responses], weights[:, order], lengths[:, responses])
    torch.testing.assert_close(permuted, loss_of(name, ratios, weights, lengths))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(group=groups(), n_padding=st.integers(1, 3), place=st.integers(0, 7), filler=st.sampled_from([0.0, -7.0, 1e4]))
def test_padding_in_any_place_changes_nothing(
    name: PreferenceLoss, group: Any, n_padding: int, place: int, filler: float
) -> None:
    def pad(tensor: torch.Tensor, at: int, value: float) -> torch.Tensor:
        return torch.cat([tensor[:, :at], torch.full((1, n_padding), value).to(tensor), tensor[:, at:]], dim=1)

    ratios, weights, lengths = group
    at = min(place, weights.shape[1])
    padded = loss_of(name, pad(ratios, 1 + at, filler), pad(weights, at, 0), pad(lengths, 1 + at, 1))
    torch.testing.assert_close(padded, loss_of(name, ratios, weights, lengths))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(ratio=st.floats(-50, 50), other=st.floats(-50, 50))
def test_plackett_luce_of_one_rejected_is_sigmoid(ratio: float, other: float) -> None:
    pair = torch.tensor([[ratio, other]], dtype=torch.float64), torch.ones(1, 1), torch.ones(1, 2)
    torch.testing.assert_close(loss_of("plackett_luce", *pair), loss_of("sigmoid", *pair), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_rejected_twice_counts_twice(name: PreferenceLoss) -> None:
    # Pairwise: the mean over (a, a, b) is 2/3 a + 1/3 b. Softmax: log(1 + 2 exp(−m_a) + exp(−m_b)), where
    # m_a = .5 · (1 + .5) and m_b = .5 · (1 − .25).
    ratios, lengths = torch.tensor([[1.0, -0.5, -0.5, 0.25]]), torch.tensor([[3, 2, 2, 5]])
    thrice = loss_of(name, ratios, torch.full((1, 3), 1 / 3), lengths)
    if name == "plackett_luce":
        expected = math.log(1 + 2 * math.exp(-0.75) + math.exp(-0.375))
    else:
        expected = loss_of(name, ratios[:, [0, 1, 3]], torch.tensor([[2 / 3, 1 / 3]]), lengths[:, [0, 1, 3]]).item()
    assert thrice.item() == pytest.approx(expected, abs=1e-6)


def test_groups_do_not_meet() -> None:
    for name in NAMES:
        ratios = RATIOS.clone().requires_grad_()
        loss_of(name, ratios, WEIGHTS, LENGTHS)[1].backward()
        assert ratios.grad is not None
        assert ratios.grad[0].tolist() == [0.0] * 3
        assert ratios.grad[1, 2] == 0.0  # nor does a padded place get a gradient
        assert ratios.grad[1, 0] < 0  # the chosen is to become more probable


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "dpo"}, "no preference loss 'dpo'; choose one of sigmoid, sigmoid_norm"),
        ({"beta": 0.0}, "beta is 0.0; it must be above 0"),
        ({"label_smoothing": 0.5}, "label_smoothing is 0.5; .* below .5"),
    ],
)
def test_what_cannot_be_minimised_is_refused(change: dict[str, Any], message: str) -> None:
    asked: dict[str, Any] = {"name": "sigmoid", "beta": 0.5, "label_smoothing": 0.0} | change
    with pytest.raises(ConfigError, match=message):
        preference_loss(asked.pop("name"), RATIOS, WEIGHTS, LENGTHS, **asked)


def test_weights_that_would_be_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shapes \[\(2, 3\), \(2, 1\), \(2, 3\)\]"):
        preference_loss("sigmoid", RATIOS, WEIGHTS[:, :1], LENGTHS, beta=0.5)


def test_negative_log_likelihood_counts_chosen_tokens_only() -> None:
    # −(−1 − 3) = 4; the token of the rejected response (−2) does not count
    loss = negative_log_likelihood(torch.tensor([-1.0, -2.0, -3.0]), torch.tensor([True, False, True]))
    assert float(loss) == 4.0


class ScriptedModel:
    """A model whose log-probabilities of each token are given; the chosen's rows first, as TRL lays a batch out."""

    def __init__(self, log_probs: torch.Tensor) -> None:
        self.log_probs = log_probs

    def __call__(self, **inputs: Any) -> SimpleNamespace:
        rest = torch.zeros_like(self.log_probs)
        return SimpleNamespace(log_probs=self.log_probs, entropy=rest, mean_logits=rest, is_top1=rest.bool())


def trl_pair_loss(trainer: DPOTrainer, policy: torch.Tensor, reference: torch.Tensor, mask: torch.Tensor) -> float:
    """Return TRL's loss of one pair's log-probabilities (2, N), the chosen first, after one prompt token."""
    trainer.ref_model = ScriptedModel(reference)  # type: ignore[assignment]
    completion_mask = torch.cat([torch.zeros(2, 1, dtype=torch.long), mask], dim=1)
    ids = torch.ones_like(completion_mask)
    inputs = {"input_ids": ids, "attention_mask": ids, "completion_mask": completion_mask}
    return float(trainer._compute_loss(ScriptedModel(policy), inputs, return_outputs=False))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("name", TRL_NAMES)
def test_each_loss_of_trl_equals_trls_own_code(
    name: PreferenceLoss, dtype: torch.dtype, tolerance: float, tiny: ModelRef, tmp_path: Path
) -> None:
    with quiet_libraries():
        trainer = DPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(tiny.path),
            args=DPOConfig(
                output_dir=str(tmp_path), loss_type=[name], beta=0.5, label_smoothing=SMOOTHING.get(name, 0.0),
                use_cpu=True, bf16=False, report_to=[],
            ),
            train_dataset=Dataset.from_dict({"prompt": ["a"], "chosen": ["b"], "rejected": ["c"]}),
            processing_class=tiny_tokenizer(),
        )  # fmt: skip
    # Per-token log-probabilities of ragged groups, k = 1, 2, 4, with unequal weights: a group's loss must be the
    # weighted mean of what TRL says of each of its pairs.
    generator = torch.Generator().manual_seed(3)
    for k in (1, 2, 4):
        lengths = torch.randint(1, 9, (1, 1 + k), generator=generator)
        mask = (torch.arange(8)[None] < lengths.T).long()
        policy, reference = (-2 * torch.rand(1 + k, 8, generator=generator).to(dtype) * mask for _ in range(2))
        weights = torch.rand(1, k, generator=generator).to(dtype)
        weights /= weights.sum()
        ours = loss_of(name, (policy - reference).sum(dim=1)[None], weights, lengths)
        theirs = [trl_pair_loss(trainer, policy[[0, j]], reference[[0, j]], mask[[0, j]]) for j in range(1, 1 + k)]
        expected = sum(w * loss for w, loss in zip(weights[0].tolist(), theirs, strict=True))
        assert ours.item() == pytest.approx(expected, abs=tolerance)
