"""From groups to the parts of a batch, each a row of prefix trees within a token budget.

Notation: F families, G groups, K most rejected responses of a group, R distinct responses, N response tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from capo_core.layout.prefix_tree import TreeBatch, count_columns, lay_out
from capo_core.training.collate import PreferenceGroup

Family = tuple[PreferenceGroup, ...]
"""The groups of one item: of one annotator, or with a shared adapter of all, whose prompts then begin alike."""


@dataclass(frozen=True, eq=False)
class Part:
    """Some families of a batch in one forward pass.

    Attributes:
        groups: in the order of the tensors.
        layout: their tokens, in one row.
        place: (G, 1 + K) index of each group's chosen and rejected responses among the part's; the chosen as filler.
        weights: (G, K) each pair's share in its group's loss; 0 where there is no pair.
        is_chosen: (N,) whether a response token belongs to a chosen response.
        reference_logps: (R,) NaN where unknown.
        n_chosen_tokens: tokens of chosen responses.
    """

    groups: tuple[PreferenceGroup, ...]
    layout: TreeBatch
    place: torch.Tensor
    weights: torch.Tensor
    is_chosen: torch.Tensor
    reference_logps: torch.Tensor
    n_chosen_tokens: int

    def to(self, device: torch.device | str) -> Part:
        """Return the part on `device`."""
        return replace(self, **{name: value.to(device) for name, value in vars(self).items() if hasattr(value, "to")})


def gather_families(groups: Sequence[PreferenceGroup]) -> list[Family]:
    """Return the groups by item, items in the order of their first group."""
    families: dict[str, list[PreferenceGroup]] = {}
    for group in groups:
        families.setdefault(group.key[0], []).append(group)
    return [tuple(family) for family in families.values()]


def families_per_batch(families: Sequence[Family], n_groups: int) -> int:
    """Return how many families hold `n_groups` groups on average, at least one."""
    return max(1, round(n_groups * len(families) / sum(map(len, families))))


def count_batch(families: Sequence[Family]) -> tuple[int, int]:
    """Return the number of groups and of tokens in chosen responses, which the batch's losses are means over."""
    groups = [group for family in families for group in family]
    return len(groups), sum(len(group.responses[0]) for group in groups)


def split_into_parts(families: Sequence[Family], dtype: torch.dtype, max_tokens: int) -> list[Part]:
    """Return the families in parts of at most `max_tokens` columns each, in the order given.

    A part is one row: nothing is padded, and what its families have in common (the instruction) is there once. A
    family longer than `max_tokens` has a part of its own.

    Args:
        families: none gives no parts.
        dtype: of the model's weights; log-probabilities are float32 or wider.
        max_tokens: token budget of a part.
    """
    filled: list[list[PreferenceGroup]] = []
    for family in families:
        if filled and count_columns([*filled[-1], *family]) <= max_tokens:
            filled[-1] += family
        else:
            filled.append(list(family))
    return [_make_part(groups, dtype) for groups in filled]


def _make_part(groups: Sequence[PreferenceGroup], dtype: torch.dtype) -> Part:
    layout = lay_out([groups])
    wide = torch.promote_types(dtype, torch.float32)
    n_rejected = max(len(group.rejected) for group in groups)
    first = [0]
    for group in groups:
        first.append(first[-1] + len(group.responses))
    place = torch.tensor([_widen([0, *g.rejected], 1 + n_rejected) for g in groups])
    place += torch.tensor(first[:-1])[:, None]
    is_chosen = torch.isin(layout.response, place[:, 0])
    known = [value for g in groups for value in (g.reference_logps or [float("nan")] * len(g.responses))]
    return Part(
        groups=tuple(groups),
        layout=layout,
        place=place,
        weights=torch.tensor([_widen(g.weights, n_rejected) for g in groups], dtype=wide),
        is_chosen=is_chosen,
        reference_logps=torch.tensor(known, dtype=wide),
        n_chosen_tokens=int(is_chosen.sum()),
    )


def _widen(values: Sequence[float], length: int) -> list:
    return [*values, *[0] * (length - len(values))]
