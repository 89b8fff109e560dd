"""What must not buy imitation: copying from training, sameness, empty and degenerate text.

Copying is from the target's explanations of the training split, which trained methods have seen. Words are those of
`capo_core.text`: case, punctuation and white space do not count. The same figures for the person's own held-out text
(method human) say what is normal: who writes "They have the same meaning." of every second item is a near-duplicate of
himself. Responses without a readable explanation count in empty_rate and enter none of the other figures. The guard of
length is length_ratio in `similarity`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from rapidfuzz import fuzz, process

from capo_core.evaluation.scores import ItemScores, ScoreName, mean_scores
from capo_core.evaluation.targets import HeldOut, Responses
from capo_core.stylometry.overlap import join_texts, longest_shared_run
from capo_core.text import surface_normalise, words

NEAR_DUPLICATE = 0.9
"""Similarity to a training explanation from which on a text is its near-duplicate."""

DIVERSITY_SIZES = (1, 2)
DEGENERATE_SIZES = (1, 2, 3, 4)
MIN_REPETITIONS = 3
"""Times an n-gram must stand in a text for the text to be degenerate: "no, no" is not."""

TextScore = Callable[[str], float]
"""Score of one explanation; NaN where it has none."""


def score_guards(all_responses: Sequence[Responses], held_out: HeldOut) -> list[ItemScores]:
    """Return copying, diversity, degeneration and emptiness of every method, and of people's held-out text.

    Per explanation, averaged over items (a person's several explanations of one item: their mean):

    - longest_copied_run: words in the longest run that also stands, in order and unbroken, in one of the target's
      training explanations, as a share of the explanation's words.
    - near_duplicate_rate: 1 where the similarity (`similarity_to_any`) to one of the target's training explanations is
      at least `NEAR_DUPLICATE`.
    - degenerate_rate: 1 where `is_degenerate`.
    - empty_rate: 1 where a response has no readable explanation, or none with a word in it.

    Per person and seed over all items together: distinct_1 and distinct_2, see `score_distinct`.

    Args:
        all_responses: every method's responses.
        held_out: the people's held-out text, and their training explanations.
    """
    human = held_out.explanations[None]
    everyone = [
        (ScoreName(r.method, r.decision, ""), r.seeds, _as_cells(r.explanations), r.present) for r in all_responses
    ]
    everyone.append((ScoreName("human", None, ""), (), human, _count_texts(human) > 0))
    sources = [_training_texts(held_out, annotator) for annotator in held_out.annotators]
    scores = []
    for name, seeds, cells, present in everyone:
        by_metric = {
            "longest_copied_run": _score_cells(cells, [copied_run_scorer(texts) for texts in sources]),
            "near_duplicate_rate": _score_near_duplicates(cells, sources),
            "degenerate_rate": _score_cells(cells, [lambda text: float(is_degenerate(text))] * len(sources)),
            "empty_rate": np.where(present, _share_without_words(cells), np.nan),
        }
        scores += [mean_scores(name._replace(metric=metric), seeds, values) for metric, values in by_metric.items()]
        scores += [score_distinct(name._replace(metric=f"distinct_{n}"), seeds, cells, n) for n in DIVERSITY_SIZES]
    return scores


def copied_run_scorer(sources: Sequence[str]) -> TextScore:
    """Return a function that gives the longest run of words a text shares with any of `sources`, as share of its words.

    NaN for a text without words, and for every text where there are no sources.
    """
    joined = join_texts(words(source) for source in sources)

    def score(text: str) -> float:
        own = words(text)
        return longest_shared_run(own, joined) / len(own) if own and sources else float("nan")

    return score


def similarity_to_any(texts: Sequence[str], sources: Sequence[str]) -> np.ndarray:
    """Return for each text the greatest similarity to any source, [n] in [0, 1].

    The similarity is the normalised indel similarity of the surface-normalised texts, in characters (`rapidfuzz`):
    2 · length of the longest common subsequence / (length of the one + length of the other).

    Args:
        texts: n texts.
        sources: at least one text; its order does not matter.
    """
    left, right = ([surface_normalise(text) for text in side] for side in (texts, sources))
    return process.cdist(left, right, scorer=fuzz.ratio, dtype=np.float64).max(axis=1) / 100.0


def is_degenerate(text: str) -> bool:
    """Return whether a text has no letter, or repeats one n-gram of words over more than half of its words.

    The n-gram has 1 to 4 words and stands in the text at least `MIN_REPETITIONS` times, overlaps counted once.
    """
    if not any(character.isalpha() for character in text):
        return True
    own = words(text)
    for n in DEGENERATE_SIZES:
        n_times, free_from = Counter(), Counter()
        for start, ngram in enumerate(_ngrams(own, n)):
            if start >= free_from[ngram]:
                n_times[ngram] += 1
                free_from[ngram] = start + n
        n_most = max(n_times.values(), default=0)
        if n_most >= MIN_REPETITIONS and 2 * n * n_most > len(own):
            return True
    return False


def score_distinct(name: ScoreName, seeds: tuple[int, ...], cells: np.ndarray, n: int) -> ItemScores:
    """Return distinct_n, the share of n-grams of words that are distinct (Li et al. 2016, arXiv 1510.03055).

    For one person and seed, with c_i(g) how often n-gram g stands in item i's text and C(g) = Σ_i c_i(g)::

        distinct_n = #{g} / Σ_g C(g) = Σ_i [Σ_g c_i(g) / C(g)] / Σ_i Σ_g c_i(g)

    so that every item has its share of the count of distinct n-grams. In resamples C stays that of the whole sample: an
    item drawn twice would otherwise look like repetition. The figure falls with the amount of text; compare methods on
    the same items and beside the person's own.

    Args:
        name: of the score.
        seeds: axis S.
        cells: [S, A, I] of tuples of texts.
        n: words in an n-gram.
    """
    numerators, denominators = np.zeros(cells.shape), np.zeros(cells.shape)
    for series in np.ndindex(*cells.shape[:2]):
        by_item = [Counter(g for text in texts for g in _ngrams(words(text), n)) for texts in cells[series]]
        totals = sum(by_item, Counter())
        numerators[series] = [sum(count / totals[g] for g, count in counts.items()) for counts in by_item]
        denominators[series] = [counts.total() for counts in by_item]
    return ItemScores(name, seeds, numerators, denominators)


def _ngrams(own: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """Return the n-grams of words in order."""
    return [tuple(own[start : start + n]) for start in range(len(own) - n + 1)]


def _as_cells(explanations: np.ndarray) -> np.ndarray:
    """Return explanations as tuples of one, empty where there is none."""
    cells = np.empty(explanations.shape, dtype=object)
    for cell in np.ndindex(*explanations.shape):
        cells[cell] = () if explanations[cell] is None else (explanations[cell],)
    return cells


def _count_texts(cells: np.ndarray) -> np.ndarray:
    return np.array([len(texts) for texts in cells.flat]).reshape(cells.shape)


def _training_texts(held_out: HeldOut, annotator: str) -> list[str]:
    """Return the distinct training explanations of an annotator that have a word in them, sorted."""
    own = held_out.train.filter(held_out.train["annotator_id"] == annotator)["explanation"].drop_nulls()
    return sorted(text for text in own.unique() if words(text))


def _score_cells(cells: np.ndarray, scorers: Sequence[TextScore]) -> np.ndarray:
    """Return the mean score of the texts of each cell, each annotator's by a scorer of its own; NaN without texts."""
    scores = np.full(cells.shape, np.nan)
    known: dict[tuple[int, str], float] = {}
    for cell in np.ndindex(*cells.shape):
        annotator = cell[1]
        for text in cells[cell]:
            if (annotator, text) not in known:
                known[annotator, text] = scorers[annotator](text)
        if cells[cell]:
            scores[cell] = np.mean([known[annotator, text] for text in cells[cell]])
    return scores


def _score_near_duplicates(cells: np.ndarray, sources: Sequence[Sequence[str]]) -> np.ndarray:
    """Return the share of near-duplicates of the target's training text in each cell; NaN without words or sources."""
    tables: list[dict[str, float]] = []
    for annotator, known in enumerate(sources):
        texts = sorted({text for cell in cells[:, annotator].flat for text in cell if words(text)})
        found = similarity_to_any(texts, known) >= NEAR_DUPLICATE if texts and known else []
        tables.append(dict(zip(texts, map(float, found), strict=bool(known))))
    return _score_cells(cells, [lambda text, table=table: table.get(text, float("nan")) for table in tables])


def _share_without_words(cells: np.ndarray) -> np.ndarray:
    """Return the share of each cell's texts that have no word; 1 where there is no text."""
    shares = [np.mean([not words(text) for text in texts]) if texts else 1.0 for texts in cells.flat]
    return np.array(shares, dtype=float).reshape(cells.shape)
