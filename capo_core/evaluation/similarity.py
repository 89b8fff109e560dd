"""How like the person's explanation a generated one is, and whether it is more like his than like the others'.

ROUGE-L is the F-measure of the longest common subsequence of words (Lin 2004), computed by the `rouge-score` package
on words as capo has them everywhere (`capo_core.text.words`: any script, no stemming; the package's own tokeniser
knows only a to z and digits). Embedding similarity is the cosine. Where a person wrote several explanations of an
item, the similarity to that person is the mean over them. Responses without a readable explanation are not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from capo_core.evaluation.decision import OTHER_ANNOTATOR, mean_over_first_axis, mean_scores
from capo_core.evaluation.scores import ItemScores, ScoreName
from capo_core.evaluation.targets import HeldOut, Responses
from capo_core.stylometry.reduction import Embed
from capo_core.text import words

Pair = tuple[str, str]
"""A generated explanation and one of a person, for the same item."""

METRICS = {"rouge_l": "rouge_l_specificity", "embedding_similarity": "embedding_specificity"}
"""Each similarity and the name of its specificity."""


def score_similarity(all_responses: Sequence[Responses], held_out: HeldOut, embed: Embed | None) -> list[ItemScores]:
    """Return rouge_l, embedding_similarity, their specificities and length_ratio of every method.

    With s(g, a) the similarity of a generated explanation g to annotator a's of the same item::

        similarity  = s(g, target)
        specificity = s(g, target) - mean over the other annotators a of s(g, a)

    Averaged over targets, the specificity of responses that imitate nobody is 0 where everybody explained every item.
    The control `other_annotator` of method human holds the other annotators' explanations against the target's: how
    like him another person is. length_ratio = mean words generated / mean words of the person's, on the same items.

    Args:
        all_responses: every method's responses.
        held_out: the targets.
        embed: sentence encoder; None leaves the embedding metrics unmeasured.
    """
    human = [_human_as_responses(held_out)]
    grids = [_pair_grid(r.explanations, held_out) for r in [*all_responses, *human]]
    tables = {"rouge_l": _tabulate_rouge(grids), "embedding_similarity": _tabulate_cosines(grids, embed)}
    scores = []
    for metric, table in tables.items():
        for responses, grid in zip(all_responses, grids, strict=False):
            scores += _compare_with_people(responses, metric, _look_up(grid, table))
        between_people = _look_up(grids[-1], table)  # [A as author, A as target, I, A]
        to_target = np.einsum("baia->bai", between_people)
        others = np.where(np.eye(len(to_target), dtype=bool)[:, :, None], np.nan, to_target)
        name = ScoreName("human", None, metric, OTHER_ANNOTATOR)
        scores.append(mean_scores(name, (), mean_over_first_axis(others)))
    return scores + [_score_length(responses, held_out) for responses in all_responses]


def rouge_l(pairs: Sequence[Pair]) -> list[float]:
    """Return the ROUGE-L F-measure of each pair; 0 where one text has no word."""
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import Tokenizer

    class Words(Tokenizer):
        def tokenize(self, text: str) -> list[str]:
            return words(text)

    scorer = RougeScorer(["rougeL"], tokenizer=Words())
    return [float(scorer.score(person, generated)["rougeL"].fmeasure) for generated, person in pairs]


def cosines(pairs: Sequence[Pair], embed: Embed) -> list[float]:
    """Return the cosine of the embeddings of each pair; every text is embedded once. 0 where an embedding is zero."""
    if not pairs:
        return []
    texts = sorted({text for pair in pairs for text in pair})
    embeddings = np.asarray(embed(texts), dtype=float)
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    units = embeddings / np.where(norms > 0, norms, 1.0)
    row = {text: i for i, text in enumerate(texts)}
    left, right = (np.array([row[pair[side]] for pair in pairs]) for side in (0, 1))
    return np.einsum("nd,nd->n", units[left], units[right]).tolist()


Grid = list[tuple[tuple[int, ...], list[Pair]]]
"""Pairs by cell: index into [S, A, I, A as reference], and the pairs whose similarities are averaged there."""


def _pair_grid(explanations: np.ndarray, held_out: HeldOut) -> tuple[tuple[int, ...], Grid]:
    """Return the shape [S, A, I, A] and the pairs of every explanation with everybody's of the item."""
    n_annotators = len(held_out.annotators)
    grid: Grid = []
    for cell in np.ndindex(*explanations.shape):
        generated = explanations.item(*cell)
        if generated is None:
            continue
        for reference in range(n_annotators):
            if written := held_out.explanations.item(reference, cell[-1]):
                grid.append(((*cell, reference), [(generated, text) for text in written]))
    return (*explanations.shape, n_annotators), grid


def _tabulate(grids: Sequence[tuple[tuple[int, ...], Grid]], score: Callable[[list[Pair]], list[float]]) -> dict:
    pairs = sorted({pair for _, grid in grids for _, cell_pairs in grid for pair in cell_pairs})
    return dict(zip(pairs, score(pairs), strict=True))


def _tabulate_rouge(grids: Sequence[tuple[tuple[int, ...], Grid]]) -> dict[Pair, float]:
    """Return ROUGE-L of every distinct pair."""
    return _tabulate(grids, rouge_l)


def _tabulate_cosines(grids: Sequence[tuple[tuple[int, ...], Grid]], embed: Embed | None) -> dict[Pair, float]:
    """Return the cosine of every distinct pair, nothing without an encoder."""
    return {} if embed is None else _tabulate(grids, lambda pairs: cosines(pairs, embed))


def _look_up(shaped_grid: tuple[tuple[int, ...], Grid], table: dict[Pair, float]) -> np.ndarray:
    """Return the similarities [S, A, I, A as reference], NaN where there is nothing to compare or nothing measured."""
    shape, grid = shaped_grid
    similarities = np.full(shape, np.nan)
    for cell, pairs in grid:
        if pairs[0] in table:
            similarities[cell] = np.mean([table[pair] for pair in pairs])
    return similarities


def _compare_with_people(responses: Responses, metric: str, similarities: np.ndarray) -> list[ItemScores]:
    """Return the similarity to the target and its specificity."""
    to_target = np.einsum("saia->sai", similarities)
    own = np.eye(similarities.shape[1], dtype=bool)[None, :, None, :]
    others = mean_over_first_axis(np.moveaxis(np.where(own, np.nan, similarities), 3, 0))[0]
    cell = (responses.method, responses.decision)
    return [
        mean_scores(ScoreName(*cell, metric), responses.seeds, to_target),
        mean_scores(ScoreName(*cell, METRICS[metric]), responses.seeds, to_target - others),
    ]


def _human_as_responses(held_out: HeldOut) -> Responses:
    """Return the people's explanations as if each answered for every target: axis S is the author, [A, A, I]."""
    n_annotators, n_items = held_out.explanations.shape
    shape = (n_annotators, n_annotators, n_items)
    explanations = np.empty(shape, dtype=object)
    for author, target, item in np.ndindex(*shape):
        written = held_out.explanations[author, item]
        explanations[author, target, item] = written[0] if written and author != target else None
    everywhere = np.ones(shape, dtype=bool)
    return Responses("human", "", tuple(range(n_annotators)), everywhere, everywhere, explanations, explanations)


def _score_length(responses: Responses, held_out: HeldOut) -> ItemScores:
    """Return length_ratio, a ratio of sums over the items on which both wrote something."""
    numerators, denominators = np.zeros(responses.explanations.shape), np.zeros(responses.explanations.shape)
    for cell in np.ndindex(*responses.explanations.shape):
        generated, written = responses.explanations.item(*cell), held_out.explanations.item(*cell[1:])
        if generated is None or not written:
            continue
        numerators[cell] = len(words(generated))
        denominators[cell] = np.mean([len(words(text)) for text in written])
    name = ScoreName(responses.method, responses.decision, "length_ratio")
    return ItemScores(name, responses.seeds, numerators, denominators)
