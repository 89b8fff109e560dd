"""How like the person's explanation a generated one is, and whether it is more like his than like the others'.

Four similarities, from words to meaning:

- ROUGE-L, the F-measure of the longest common subsequence of words (Lin 2004), by the `rouge-score` package on words as
  capo has them everywhere (`capo_core.text.words`: any script, no stemming; the package's own tokeniser knows only a to
  z and digits);
- chrF, the F-measure of character n-grams up to 6, recall counting twice (β = 2; Popović 2015), by `sacrebleu`, as a
  share of 1;
- the cosine of sentence embeddings;
- BERTScore's greedy matching of contextual token embeddings (Zhang et al. 2020, arXiv 1904.09675) with capo's encoder,
  without idf weights and without rescaling by a baseline: figures of other encoders are not comparable.

Where a person wrote several explanations of an item, the similarity to that person is the mean over them. Responses
without a readable explanation are not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import numpy as np

from capo_core.evaluation.decision import OTHER_ANNOTATOR
from capo_core.evaluation.scores import ItemScores, ScoreName, mean_over_first_axis, mean_scores
from capo_core.evaluation.targets import HeldOut, Responses
from capo_core.stylometry.reduction import Embed
from capo_core.text import words

Pair = tuple[str, str]
"""A generated explanation and one of a person, for the same item."""

EmbedTokens = Callable[[list[str]], list[np.ndarray]]
"""n texts to the embeddings of their tokens, each [t, d]."""

METRICS = {
    "rouge_l": "rouge_l_specificity",
    "chrf": "chrf_specificity",
    "embedding_similarity": "embedding_specificity",
    "bertscore_f1": "bertscore_specificity",
}
"""Each similarity and the name of its specificity."""

NOT_TOKEN_MATCHED = ("constrained",)
"""Decisions without BERTScore, the dearest of the four: only the label is decided otherwise, the explanation is sampled
like those of `sampled`, and the other three similarities are measured for it."""

_TEXTS_AT_A_TIME = 512


def score_similarity(
    all_responses: Sequence[Responses],
    held_out: HeldOut,
    embed: Embed | None,
    embed_tokens: EmbedTokens | None = None,
) -> list[ItemScores]:
    """Return the four similarities of every method, their specificities, and length_ratio.

    With s(g, a) the similarity of a generated explanation g to annotator a's of the same item::

        similarity  = s(g, target)
        specificity = s(g, target) - mean over the other annotators a of s(g, a)

    Averaged over targets, the specificity of responses that imitate nobody is 0 where everybody explained every item.
    The control `other_annotator` of method human holds the other annotators' explanations against the target's: how
    like him another person is. length_ratio = mean words generated / mean words of the person's, on the same items.
    Every distinct pair of texts is compared once, whichever methods, seeds and targets it occurs with.

    Args:
        all_responses: every method's responses.
        held_out: the targets.
        embed: sentence encoder; None leaves embedding_similarity and its specificity unmeasured.
        embed_tokens: token encoder; None leaves bertscore_f1 and its specificity unmeasured, as they are for
            `NOT_TOKEN_MATCHED`.
    """
    human = [_human_as_responses(held_out)]
    grids = [_pair_grid(r.explanations, held_out) for r in [*all_responses, *human]]
    pairs = _distinct_pairs(grids)
    matched = [g for r, g in zip([*all_responses, *human], grids, strict=True) if r.decision not in NOT_TOKEN_MATCHED]
    tables = {
        "rouge_l": _tabulate(pairs, rouge_l),
        "chrf": _tabulate(pairs, chrf),
        "embedding_similarity": {} if embed is None else _tabulate(pairs, lambda p: cosines(p, embed)),
        "bertscore_f1": {}
        if embed_tokens is None
        else _tabulate(_distinct_pairs(matched), lambda p: bertscore_f1(p, embed_tokens)),
    }
    scores = []
    for metric, table in tables.items():
        for responses, grid in zip(all_responses, grids, strict=False):
            # A text may by chance stand in the table for another decision's sake: a figure of such texts is biased.
            skipped = metric == "bertscore_f1" and responses.decision in NOT_TOKEN_MATCHED
            scores += _compare_with_people(responses, metric, _look_up(grid, {} if skipped else table))
        scores.append(_compare_people(metric, _look_up(grids[-1], table)))
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


def chrf(pairs: Sequence[Pair]) -> list[float]:
    """Return chrF of each pair, the person's text the reference, in [0, 1].

    With P and R the mean precision and recall of character n-grams over the orders 1 to 6 that both texts have, white
    space left out: chrF = (1 + β²) P R / (β² P + R), β = 2 (Popović 2015, eq. 1). 0 where they share nothing.
    """
    from sacrebleu.metrics.chrf import CHRF

    metric = CHRF(char_order=6, word_order=0, beta=2)
    return [metric.sentence_score(generated, [person]).score / 100.0 for generated, person in pairs]


def cosines(pairs: Sequence[Pair], embed: Embed) -> list[float]:
    """Return the cosine of the embeddings of each pair; every text is embedded once. 0 where an embedding is zero."""
    if not pairs:
        return []
    texts = sorted({text for pair in pairs for text in pair})
    units = _unit_rows(embed(texts))
    row = {text: i for i, text in enumerate(texts)}
    left, right = (np.array([row[pair[side]] for pair in pairs]) for side in (0, 1))
    return np.einsum("nd,nd->n", units[left], units[right]).tolist()


def bertscore_f1(pairs: Sequence[Pair], embed_tokens: EmbedTokens) -> list[float]:
    """Return BERTScore's F1 of each pair: every token matched with the most similar one of the other text.

    With x the unit token embeddings of the person's text and y of the generated one (Zhang et al. 2020, eq. 1 to 3)::

        R = 1/|x| Σ_i max_j x_i · y_j      P = 1/|y| Σ_j max_i x_i · y_j      F1 = 2 P R / (P + R)

    Args:
        pairs: pairs that share texts are best neighbours: texts are embedded a bounded number at a time, each once as
            long as its pairs are within that number.
        embed_tokens: token encoder.

    Returns:
        0 where a text has no token or nothing is alike (P + R not positive).
    """
    scores: list[float] = []
    for block in _blocks_of_texts(pairs):
        texts = sorted(set(chain.from_iterable(block)))
        tokens = {text: _unit_rows(one) for text, one in zip(texts, embed_tokens(texts), strict=True)}
        scores += [_match_greedily(tokens[generated], tokens[person]) for generated, person in block]
    return scores


def _match_greedily(generated: np.ndarray, person: np.ndarray) -> float:
    """Return the F1 of greedy matching of unit token embeddings [t, d]."""
    if not len(generated) or not len(person):
        return 0.0
    cosines = person @ generated.T
    recall, precision = float(cosines.max(axis=1).mean()), float(cosines.max(axis=0).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def _blocks_of_texts(pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
    """Yield the pairs in order, in blocks of at most `_TEXTS_AT_A_TIME` different texts."""
    block: list[Pair] = []
    texts: set[str] = set()
    for pair in pairs:
        if len(texts) + sum(text not in texts for text in set(pair)) > _TEXTS_AT_A_TIME:
            yield block
            block, texts = [], set()
        block.append(pair)
        texts.update(pair)
    if block:
        yield block


def _unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Return rows of length 1; zeros stay zeros."""
    vectors = np.asarray(vectors, dtype=float)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1.0)


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


def _tabulate(pairs: list[Pair], score: Callable[[list[Pair]], list[float]]) -> dict[Pair, float]:
    return dict(zip(pairs, score(pairs), strict=True))


def _distinct_pairs(grids: Sequence[tuple[tuple[int, ...], Grid]]) -> list[Pair]:
    """Return every distinct pair once, those of an item together."""
    first_item: dict[Pair, int] = {}
    for _, grid in grids:
        for cell, pairs in grid:
            for pair in pairs:
                first_item[pair] = min(cell[2], first_item.get(pair, cell[2]))
    return sorted(first_item, key=lambda pair: (first_item[pair], pair))


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


def _compare_people(metric: str, similarities: np.ndarray) -> ItemScores:
    """Return the control other_annotator from similarities [A as author, A as target, I, A]."""
    to_target = np.einsum("baia->bai", similarities)
    others = np.where(np.eye(len(to_target), dtype=bool)[:, :, None], np.nan, to_target)
    return mean_scores(ScoreName("human", None, metric, OTHER_ANNOTATOR), (), mean_over_first_axis(others))


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
