"""The strongest pairwise trainer: what can be had without computing a prompt once for several responses.

Every pair is two rows, prompt + chosen and prompt + rejected. Rows are sorted by length into passes of a token budget,
padded to the longest of the pass only; the attention is plain causal, so that no mask has to be read; the vocabulary
head runs at response positions only, in chunks; reference log-probabilities are precomputed. What is measured against
it is therefore the sharing, not carelessness.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import logsigmoid

from capo_core.training.collate import PreferenceGroup
from capo_core.training.logps import _half_precision, head_logps

_Row = tuple[Sequence[int], Sequence[int]]


class PairwiseTrainer:
    """Gradients of the CAPO loss of some groups, pair by pair."""

    def __init__(self, model: Any, max_tokens: int, *, beta: float, sft_weight: float) -> None:
        self._model, self._max_tokens, self._beta, self._sft_weight = model, max_tokens, beta, sft_weight
        self._causal = model.get_base_model()

    def add_references(self, pairs: Sequence[tuple[_Row, _Row]]) -> list[tuple[_Row, _Row, float]]:
        """Return the pairs with the difference of their log-probabilities under the model as it is."""
        self._model.eval()
        with torch.no_grad():
            rows = [row for pair in pairs for row in pair]
            logps = torch.zeros(len(rows))
            for chunk in self._in_passes(rows):
                _, sums = self._score([rows[i] for i in chunk])
                logps[chunk] = sums.cpu()
        return [(*pair, float(logps[2 * i] - logps[2 * i + 1])) for i, pair in enumerate(pairs)]

    def backward(self, pairs: Sequence[tuple[_Row, _Row, float]]) -> None:
        """Add the gradients of the mean loss over the pairs, two rows of a pair in the same pass."""
        n_tokens = sum(len(chosen[1]) for chosen, _, _ in pairs)
        lengths = [max(sum(map(len, chosen)), sum(map(len, rejected))) for chosen, rejected, _ in pairs]
        for chunk in _fill(lengths, self._max_tokens // 2):
            kept = [pairs[i] for i in chunk]
            tokens, sums = self._score([row for pair in kept for row in pair[:2]])
            margins = sums[0::2] - sums[1::2] - torch.tensor([pair[2] for pair in kept], device=sums.device)
            n_chosen = [len(row[1]) for pair in kept for row in pair[:2]]
            chosen = torch.cat([part for i, part in enumerate(tokens.split(n_chosen)) if i % 2 == 0])
            loss = -logsigmoid(self._beta * margins).sum() / len(pairs) - self._sft_weight * chosen.sum() / n_tokens
            loss.backward()

    def _in_passes(self, rows: Sequence[_Row]) -> list[list[int]]:
        return _fill([sum(map(len, row)) for row in rows], self._max_tokens)

    def _score(self, rows: Sequence[_Row]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log-probabilities of the response tokens (N,) and their sums by row (R,)."""
        width = max(len(prompt) + len(response) for prompt, response in rows)
        ids = torch.tensor([[*p, *r] + [0] * (width - len(p) - len(r)) for p, r in rows]).to(self._causal.device)
        places = [i * width + len(p) - 1 + t for i, (p, r) in enumerate(rows) for t in range(len(r))]
        owners = torch.tensor([i for i, (_, r) in enumerate(rows) for _ in r]).to(ids.device)
        target = torch.tensor([token for _, r in rows for token in r]).to(ids.device)
        with _half_precision(self._model, self._causal.dtype, ids.device.type):
            # Padding stands on the right: plain causal attention never reaches it.
            states = self._causal.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        predicting = states.flatten(0, 1)[torch.tensor(places).to(ids.device)].to(self._causal.dtype)
        tokens = head_logps(predicting, self._causal.get_output_embeddings().weight, target)
        return tokens, tokens.new_zeros(len(rows)).index_add(0, owners, tokens)


def pairs_of(groups: Sequence[PreferenceGroup]) -> list[tuple[_Row, _Row]]:
    """Return every pair of the groups as two rows (prompt, response)."""
    return [
        ((group.prompt, group.responses[0]), (group.prompt, group.responses[place]))
        for group in groups
        for place in group.rejected
    ]


def _fill(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Return the indices by falling length in passes of at most `max_tokens`, padding included."""
    passes: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if passes and (len(passes[-1]) + 1) * lengths[passes[-1][0]] <= max_tokens:
            passes[-1].append(i)
        else:
            passes.append([i])
    return passes
