"""Prefix trees give the log-probabilities, losses and gradients of responses taken one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from tiny_model import one_thread, tiny_config
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.masking_utils import eager_mask

from capo_core.errors import TrainingError
from capo_core.layout.attention import FOLDED, folded_attention
from capo_core.layout.prefix_tree import TokenGroup, count_columns, lay_out
from capo_core.training.batch import Part, gather_families, split_into_parts
from capo_core.training.collate import PreferenceGroup
from capo_core.training.grouped_trainer import sum_losses
from capo_core.training.layout_check import check_layout
from capo_core.training.logps import head_logps, score_responses
from capo_core.training.objective import Objective, measure
from capo_core.training.reference import add_reference_logps, check_start, score_groups

__all__ = ["one_thread"]

CAPO = Objective(loss="sigmoid", sft_weight=0.2, beta=0.1)
BUDGET = 10_000


def make_model(dtype: torch.dtype = torch.float64, attention: str = FOLDED, family: str = "llama") -> Any:
    """Return a tiny random model with a LoRA adapter whose two factors are both random."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        if family == "qwen3":
            config: Any = Qwen3Config(**(tiny_config().to_dict() | {"head_dim": 8, "model_type": "qwen3"}))
            config._attn_implementation = attention
            base: Any = Qwen3ForCausalLM(config)
        else:
            config = tiny_config()
            config._attn_implementation = attention
            base = LlamaForCausalLM(config)
        if dtype == torch.float64:
            _widen_norms(base)
        model: Any = get_peft_model(
            base.to(dtype).eval(), LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
        )
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05)
            if "lora_" in name and dtype == torch.float64:
                parameter.data = parameter.data.double()
    return model


def _widen_norms(module: torch.nn.Module) -> None:
    """Replace transformers' norms, which go through float32, so that float64 is float64 throughout."""
    for name, child in module.named_children():
        if type(child).__name__.endswith("RMSNorm"):
            weight: Any = child.weight
            setattr(module, name, torch.nn.RMSNorm(weight.shape, eps=1e-6, dtype=torch.float64))
        else:
            _widen_norms(child)


def make_groups(seed: int = 0) -> list[PreferenceGroup]:
    """Return groups with 1 to 7 rejected responses of ragged lengths: single tokens, equal ones, the chosen itself."""
    rng = torch.Generator().manual_seed(seed)

    def tokens(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(2, 258, (n,), generator=rng).tolist())

    groups = []
    for k in range(1, 8):
        responses = [tokens(1 + (3 * j + k) % 9) for j in range(k + 1)]
        references = tuple((-5.0 * torch.rand(k + 1, generator=rng)).tolist())
        groups.append(
            PreferenceGroup(tokens(4 + 3 * k), responses, (str(k),), tuple(range(1, k + 1)), (1 / k,) * k, references)
        )
    # answered alike by two annotators, and once like the chosen
    groups.append(PreferenceGroup(tokens(9), [tokens(1), tokens(6)], ("equal",), (1, 0, 1), (1 / 3,) * 3, (-2.0, -3.0)))
    return groups


def token_logps_alone(model: Any, prompt: Any, response: Any) -> torch.Tensor:
    """Return log-probabilities by the model's own forward pass over prompt + response, all logits, no mask of ours."""
    ids = torch.tensor([[*prompt, *response]])
    logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits, dim=-1).gather(1, ids[0, len(prompt) :, None])[:, 0]


def pairwise_loss(model: Any, groups: list[PreferenceGroup], beta: float, sft_weight: float) -> torch.Tensor:
    """Return the CAPO loss pair by pair, every response run with its prompt, written without any of our functions."""
    preference, nll, n_tokens = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64), 0
    for group in groups:
        logps = [token_logps_alone(model, group.prompt, response) for response in group.responses]
        pairs = []
        for place in group.rejected:
            margin = (logps[0].sum() - group.reference_logps[0]) - (logps[place].sum() - group.reference_logps[place])
            pairs.append(torch.log1p(torch.exp(-beta * margin)))
        preference = preference + torch.stack(pairs).mean()
        nll = nll - logps[0].sum()
        n_tokens += len(logps[0])
    return preference / len(groups) + sft_weight * nll / n_tokens


def lay_out_apart(groups: list[PreferenceGroup]) -> Any:
    """Return the groups in a row each."""
    return lay_out([[group] for group in groups])


def in_parts(groups: list[PreferenceGroup], dtype: torch.dtype, max_tokens: int = BUDGET) -> list[Part]:
    return split_into_parts(gather_families(groups), dtype, max_tokens)


def with_references(model: Any, groups: list[PreferenceGroup]) -> list[PreferenceGroup]:
    return add_reference_logps(groups, score_groups(model, groups, BUDGET))


def grouped_loss(model: Any, groups: list[PreferenceGroup], max_tokens: int = BUDGET) -> torch.Tensor:
    parts = in_parts(groups, model.get_base_model().dtype, max_tokens)
    n_tokens = sum(part.n_chosen_tokens for part in parts)
    return torch.stack([sum_losses(model, p, CAPO).loss(CAPO, len(groups), n_tokens) for p in parts]).sum()


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize(("attention", "tolerance"), [(FOLDED, 1e-10), ("sdpa", 1e-10), ("eager", 1e-5)])
def test_log_probabilities_equal_those_of_each_response_alone(attention: str, tolerance: float, family: str) -> None:
    # eager attention takes its softmax in float32 even in a float64 model
    model, groups = make_model(attention=attention, family=family), make_groups()
    scores = score_responses(model, lay_out_apart(groups))
    alone = [token_logps_alone(model, g.prompt, r) for g in groups for r in g.responses]
    assert torch.allclose(scores.tokens, torch.cat(alone), atol=tolerance, rtol=0)
    summed = torch.stack([logps.sum() for logps in alone])
    assert torch.allclose(scores.responses, summed, atol=10 * tolerance, rtol=0)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_sees_what_the_trees_say() -> None:
    # CUDA's kernel, run here uncompiled: the rule that makes its block mask is what is tested.
    groups = make_groups()
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        flex = score_responses(make_model(torch.float32, "flex_attention"), lay_out([groups])).responses
    folded = score_responses(make_model(torch.float32), lay_out([groups])).responses
    assert torch.allclose(flex, folded, atol=1e-4)


@pytest.mark.parametrize("attention", [FOLDED, "sdpa"])
def test_one_row_or_several_give_the_same(attention: str) -> None:
    model, groups = make_model(attention=attention), make_groups()
    together, apart = score_responses(model, lay_out([groups])), score_responses(model, lay_out_apart(groups))
    assert torch.allclose(together.tokens, apart.tokens, atol=1e-12, rtol=0)


def test_loss_and_gradients_equal_the_pairwise_ones_in_float64() -> None:
    model, groups = make_model(), make_groups()
    ours, theirs = grouped_loss(model, groups), pairwise_loss(model, groups, CAPO.beta, CAPO.sft_weight)
    assert abs(float(ours.detach() - theirs.detach())) < 1e-10
    expected, found = gradients(model, theirs), gradients(model, ours)
    assert len(found) == 2 * 2 * 7  # two factors, two layers, seven linear maps
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-10, rtol=1e-10), name


def test_loss_and_gradients_equal_the_pairwise_ones_in_float32() -> None:
    model, groups = make_model(torch.float32), make_groups()
    ours, theirs = grouped_loss(model, groups), pairwise_loss(model, groups, CAPO.beta, CAPO.sft_weight)
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), abs=1e-6)
    expected, found = gradients(model, theirs), gradients(model, ours)
    for name, gradient in expected.items():
        assert float((found[name] - gradient).norm() / gradient.norm()) < 1e-4, name


def test_parts_add_up_to_the_gradient_of_the_whole_batch() -> None:
    model, groups = make_model(), make_groups()
    whole, split = gradients(model, grouped_loss(model, groups)), gradients(model, grouped_loss(model, groups, 60))
    assert len(in_parts(groups, torch.float64, 60)) > 2
    for name in whole:
        assert torch.allclose(whole[name], split[name], atol=1e-12), name


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_an_opening_shared_by_all_prompts_is_computed_once_and_changes_nothing(family: str) -> None:
    model = make_model(family=family)
    opening = [(5 * i) % 250 + 2 for i in range(20)]
    groups = [replace(group, prompt=[*opening, *group.prompt]) for group in make_groups()]
    (part,) = in_parts(groups, torch.float64)
    assert part.layout.input_ids.numel() == 20 + sum(count_columns([group]) - 20 for group in groups)
    compare_with_pairwise(model, groups)


@pytest.mark.parametrize("attention", [FOLDED, "sdpa"])
def test_an_item_asked_of_several_annotators_is_computed_once_and_changes_nothing(attention: str) -> None:
    model = make_model(attention=attention)
    item = [(7 * i) % 250 + 2 for i in range(30)]
    groups = [replace(group, prompt=[*item, 100 + i, 7], key=("item", str(i))) for i, group in enumerate(make_groups())]
    (part,) = in_parts(groups, torch.float64)
    assert part.layout.input_ids.numel() == 30 + sum(count_columns([group]) - 30 for group in groups)
    compare_with_pairwise(model, groups)


def compare_with_pairwise(model: Any, groups: list[PreferenceGroup]) -> None:
    ours, theirs = grouped_loss(model, groups), pairwise_loss(model, groups, CAPO.beta, CAPO.sft_weight)
    assert abs(float(ours.detach() - theirs.detach())) < 1e-10
    expected, found = gradients(model, theirs), gradients(model, ours)
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-10, rtol=1e-10), name


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=2, max_size=8),
    changed=st.integers(0, 7),
    token=st.integers(2, 257),
    n_prompt=st.integers(1, 7),
)
def test_no_response_influences_another(lengths: list[int], changed: int, token: int, n_prompt: int) -> None:
    model = _SHARED_MODEL
    responses = [[(7 * i + 3 * j) % 250 + 2 for j in range(n)] for i, n in enumerate(lengths)]
    prompt = [(11 * i) % 250 + 2 for i in range(n_prompt)]
    changed %= len(responses)
    other = [list(response) for response in responses]
    other[changed] = [token, *other[changed], token]
    before = score_responses(model, lay_out([[TokenGroup(prompt, responses)]])).responses
    after = score_responses(model, lay_out([[TokenGroup(prompt, other)]])).responses
    kept = [i for i in range(len(responses)) if i != changed]
    assert torch.allclose(before[kept], after[kept], atol=1e-12, rtol=0)


_SHARED_MODEL = make_model()


def test_order_of_rejected_responses_does_not_change_the_loss() -> None:
    group = make_groups()[4]
    order = [0, 3, 5, 1, 4, 2]
    turned = replace(
        group,
        responses=[group.responses[i] for i in order],
        reference_logps=tuple(group.reference_logps[i] for i in order),
    )
    model = make_model()
    with torch.no_grad():
        assert abs(float(grouped_loss(model, [group]) - grouped_loss(model, [turned]))) < 1e-12


def test_padding_changes_nothing_and_is_never_nan() -> None:
    model, groups = make_model(), make_groups()
    short, long = (pick(groups, key=lambda g: count_columns([g])) for pick in (min, max))
    alone = score_responses(model, lay_out_apart([short])).responses
    padded = score_responses(model, lay_out_apart([short, long])).responses
    assert torch.allclose(alone, padded[: len(alone)], atol=1e-12, rtol=0)
    assert torch.isfinite(padded).all()


def test_without_rejected_responses_the_loss_is_the_anchor_alone() -> None:
    model = make_model()
    bare = [replace(g, responses=g.responses[:1], rejected=(), weights=(), reference_logps=()) for g in make_groups()]
    n_tokens = sum(len(group.responses[0]) for group in bare)
    expected = -sum(float(token_logps_alone(model, g.prompt, g.responses[0]).sum()) for g in bare) / n_tokens
    assert float(grouped_loss(model, bare).detach()) == pytest.approx(0.2 * expected, abs=1e-10)


def test_bfloat16_base_with_float32_adapter_stays_close_and_trains_the_adapter() -> None:
    half, full, groups = make_model(torch.bfloat16), make_model(torch.float32), make_groups()
    assert half.get_base_model().dtype == torch.bfloat16
    assert {p.dtype for n, p in half.named_parameters() if "lora_" in n} == {torch.float32}
    ours = score_responses(half, lay_out_apart(groups))
    assert ours.tokens.dtype == torch.float32
    exact = score_responses(full, lay_out_apart(groups))
    assert float((ours.tokens - exact.tokens).abs().mean()) < 0.1
    found = gradients(half, grouped_loss(half, groups))
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}


def test_head_gives_log_softmax_and_its_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    # three positions at a time of ten
    monkeypatch.setattr("capo_core.training.logps._LOGITS_AT_ONCE", 3 * 17)
    torch.manual_seed(0)
    hidden = torch.randn(10, 5, dtype=torch.float64, requires_grad=True)
    weight, target = torch.randn(17, 5, dtype=torch.float64), torch.randint(0, 17, (10,))
    expected = torch.log_softmax(hidden @ weight.T, dim=-1).gather(1, target[:, None])[:, 0]
    assert torch.allclose(head_logps(hidden, weight, target), expected, atol=1e-12)
    assert torch.autograd.gradcheck(lambda h: head_logps(h, weight, target), (hidden,))


def test_a_sliding_window_is_refused_with_advice() -> None:
    model = make_model()
    model.get_base_model().config.sliding_window = 16
    with pytest.raises(TrainingError, match=r"sliding window of 16 tokens; set trainer: trl"):
        check_layout(model, make_groups()[0])


def test_a_model_that_ignores_the_mask_is_found_out() -> None:
    # A stand-in for every architecture that does its own masking: attention that is causal whatever mask it is given.
    def stubborn(module: Any, q: Any, k: Any, v: Any, mask: Any, **kwargs: Any) -> Any:
        causal = torch.zeros_like(mask).masked_fill(torch.ones(mask.shape[-2:]).triu(1).bool(), -1e300)
        return folded_attention(module, q, k, v, causal, **kwargs)

    AttentionInterface.register("stubborn", stubborn)
    AttentionMaskInterface.register("stubborn", eager_mask)
    with pytest.raises(TrainingError, match="changes log-probabilities by"):
        check_layout(make_model(attention="stubborn"), make_groups()[3])
    check_layout(make_model(), make_groups()[3])


def test_reference_equals_the_policy_before_the_first_step() -> None:
    model = make_model(torch.float32)
    groups = with_references(model, make_groups())
    figures = measure(model, in_parts(groups, model.get_base_model().dtype), replace(CAPO, sft_weight=0.0))
    assert figures["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert figures["margin"] == pytest.approx(0.0, abs=1e-5)
    check_start(model, groups, BUDGET)


def test_a_reference_of_another_adapter_stops_training() -> None:
    model = make_model(torch.float32)
    groups = with_references(model, make_groups())
    for parameter in (p for n, p in model.named_parameters() if "lora_B" in n):
        parameter.data.zero_()
    with pytest.raises(TrainingError, match=r"instead of log 2"):
        check_start(model, groups, BUDGET)


def test_measured_figures_are_means_over_groups_of_means_over_pairs() -> None:
    model = make_model()
    groups = make_groups()[:3]  # 1, 2 and 3 rejected
    figures = measure(model, in_parts(groups, model.get_base_model().dtype), CAPO)
    logps = [[float(token_logps_alone(model, g.prompt, r).sum()) for r in g.responses] for g in groups]
    margins = [
        [(ls[0] - g.reference_logps[0]) - (ls[i] - g.reference_logps[i]) for i in g.rejected]
        for ls, g in zip(logps, groups, strict=True)
    ]
    assert figures["chosen_logps"] == pytest.approx(sum(ls[0] for ls in logps) / 3)
    assert figures["rejected_logps"] == pytest.approx(sum(sum(ls[1:]) / len(ls[1:]) for ls in logps) / 3)
    assert figures["margin"] == pytest.approx(sum(0.1 * sum(ms) / len(ms) for ms in margins) / 3)
    assert figures["accuracy"] == pytest.approx(sum(sum(m > 0 for m in ms) / len(ms) for ms in margins) / 3)


def test_unknown_references_are_nan_and_not_zero() -> None:
    (group,) = make_groups()[:1]
    (part,) = in_parts([replace(group, reference_logps=())], torch.float32)
    assert torch.isnan(part.reference_logps).all()
