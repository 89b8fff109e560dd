"""The prefix tree: sequences that begin alike in one row, each distinct beginning computed once.

    item item item ─┬─ tag a ─┬─ Label: neutral … (chosen)
                    │         └─ Label: contradiction … (rejected)
                    └─ tag b ─── Label: neutral …

A row holds the tree in depth-first order, one column per node. A token sees its ancestors and itself, and its position
is its depth, so log-probabilities are those of each sequence alone. Trees that share nothing may stand in one row.

Notation: B rows, L columns per row with padding, U scored columns, N response tokens in all, R responses in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Self

import torch


@dataclass(frozen=True)
class TokenGroup:
    """One prompt with its responses, as tokens."""

    prompt: Sequence[int]
    responses: Sequence[Sequence[int]]


@dataclass(frozen=True, eq=False)
class TreeBatch:
    """Tensors of several rows of trees.

    Attributes:
        input_ids: (B, L).
        position_ids: (B, L); padding has position 0.
        end: (B, L) one past the last column below each token: token i sees token j if j ≤ i < end[j].
        predictor: (U,) index into the flattened B · L of the parent of each scored column.
        target: (U,) the token there.
        scored: (N,) index into U of each response token; responses that begin alike share columns.
        response: (N,) which of the R responses each belongs to, numbered over the batch.
        n_tokens: (R,) length of each response.
        paths: per response the columns of its prompt and its own tokens.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    end: torch.Tensor
    predictor: torch.Tensor
    target: torch.Tensor
    scored: torch.Tensor
    response: torch.Tensor
    n_tokens: torch.Tensor
    paths: tuple[list[int], ...] = ()

    def attention_mask(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the additive mask (B, 1, L, L): 0 where a token sees another, the dtype's minimum elsewhere."""
        return additive(visibility(self.end), dtype)

    def to(self, device: torch.device | str) -> Self:
        """Return the batch on `device`."""
        return replace(self, **{name: value.to(device) for name, value in vars(self).items() if hasattr(value, "to")})


@dataclass
class _Tree:
    """Columns of one row: token, depth, parent column (-1 at a root), end of the subtree; paths by sequence."""

    tokens: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    paths: list[list[int]] = field(default_factory=list)


def lay_out(rows: Sequence[Sequence[TokenGroup]], *, first_position: int = 0) -> TreeBatch:
    """Return the tensors of the rows in their order, responses numbered group by group; padded on the right.

    Args:
        rows: at least one, each of at least one group; prompts not empty, responses not empty.
        first_position: position of the first prompt token, if a shared prefix comes before it.

    Raises:
        ValueError: if a prompt or a response is empty.
    """
    if any(not group.prompt or not all(group.responses) for row in rows for group in row):
        raise ValueError("prompts and responses must have at least one token")
    trees = [_grow(row) for row in rows]
    n_columns = max(len(tree.tokens) for tree in trees)
    paths: list[list[int]] = []
    places: dict[int, int] = {}  # flattened column → index among the scored
    scored: list[int] = []
    lengths: list[int] = []
    for number, (row, tree) in enumerate(zip(rows, trees, strict=True)):
        found = iter(tree.paths)
        for group in row:
            for response in group.responses:
                path = next(found)
                own = path[len(group.prompt) :]
                scored += [places.setdefault(number * n_columns + column, len(places)) for column in own]
                lengths.append(len(response))
                paths.append(path)
            if not group.responses:
                next(found)
    parents = [number * n_columns + p for number, tree in enumerate(trees) for p in _pad(tree.parents, n_columns, 0)]
    ids = torch.tensor([_pad(tree.tokens, n_columns, 0) for tree in trees])
    columns = torch.tensor(list(places), dtype=torch.long)
    n_tokens = torch.tensor(lengths, dtype=torch.long)
    return TreeBatch(
        input_ids=ids,
        position_ids=torch.tensor([_pad([first_position + d for d in t.depths], n_columns, 0) for t in trees]),
        end=torch.tensor([t.ends + list(range(len(t.ends) + 1, n_columns + 1)) for t in trees]),
        predictor=torch.tensor(parents, dtype=torch.long)[columns],
        target=ids.flatten()[columns],
        scored=torch.tensor(scored, dtype=torch.long),
        response=torch.repeat_interleave(torch.arange(len(lengths)), n_tokens),
        n_tokens=n_tokens,
        paths=tuple(paths),
    )


def count_columns(groups: Sequence[TokenGroup]) -> int:
    """Return how many columns the trees of some groups take in one row: their distinct beginnings."""
    ordered = sorted(_sequences(groups))
    return sum(map(len, ordered)) - sum(count_shared(before, after) for before, after in pairwise(ordered))


def count_shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many first tokens two sequences have in common."""
    shortest = min(len(one), len(other))
    if one[:shortest] == other[:shortest]:
        return shortest
    return next(i for i in range(shortest) if one[i] != other[i])


def visibility(end: torch.Tensor) -> torch.Tensor:
    """Return which token (row of the last two dimensions) sees which, (B, L, L) boolean: ancestors and itself.

    In depth-first order j is an ancestor of i, or i itself, exactly if j ≤ i < end[j]. Padding sees itself, so that
    no row of a mask is empty.
    """
    column = torch.arange(end.shape[1], device=end.device)
    return (column <= column[:, None]) & (column[:, None] < end[:, None, :])


def additive(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the additive mask (B, 1, Q, S) of a boolean (B, Q, S).

    A boolean 4-D mask would be added as 0 and 1 by eager attention: no error, wrong attention.
    """
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]


def _grow(groups: Sequence[TokenGroup]) -> _Tree:
    """Return the tree of the groups' sequences. Sorted, those that begin alike stand side by side."""
    sequences = _sequences(groups)
    tree = _Tree(paths=[[] for _ in sequences])
    path: list[int] = []
    before: tuple[int, ...] = ()
    for place in sorted(range(len(sequences)), key=sequences.__getitem__):
        sequence = sequences[place]
        n_shared = count_shared(before, sequence)
        first = len(tree.tokens)
        for column in path[n_shared:]:
            tree.ends[column] = first
        path = path[:n_shared] + list(range(first, first + len(sequence) - n_shared))
        tree.tokens += sequence[n_shared:]
        tree.depths += range(n_shared, len(sequence))
        tree.parents += [path[depth - 1] if depth else -1 for depth in range(n_shared, len(sequence))]
        tree.ends += [0] * (len(sequence) - n_shared)
        tree.paths[place] = path
        before = sequence
    for column in path:
        tree.ends[column] = len(tree.tokens)
    return tree


def _sequences(groups: Sequence[TokenGroup]) -> list[tuple[int, ...]]:
    """Return prompt + response for each response of each group; the prompt alone of a group without any."""
    return [(*group.prompt, *response) for group in groups for response in group.responses or [()]]


def _pad(values: Sequence[int], length: int, filler: int) -> list[int]:
    return [*values, *[filler] * (length - len(values))]
