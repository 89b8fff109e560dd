"""What is judged: groups of explanations by one author, and reference explanations of every candidate.

Judges and human raters draw from here. Three rules hold for both: groups of one method, seed and annotator never
share an item; the order in which items enter groups does not depend on the method, so that methods are compared on
the same items as far as their responses could be parsed; references come from training items only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from capo_core.errors import CorpusError
from capo_core.seeding import derive_seed
from capo_core.text import identity_form

HUMAN = "human"
HUMAN_SHUFFLED = "human_shuffled"
"""The floor: people's own explanations, annotators permuted at random within each item."""

MAX_CANDIDATES = 26

_Pool = dict[str, str]  # item_id -> explanation


@dataclass(frozen=True)
class Group:
    """Explanations of one author for different items.

    Attributes:
        method: human | human_shuffled | zero_shot | history | sft | capo.
        seed: seed of the generations; the drawing seed for people's own explanations.
        annotator_id: who wrote them or whom they imitate; for zero_shot, the nominal target.
        index: 0-based number within method, seed and annotator; groups with one index share their references.
        item_ids: the items, one per explanation.
        explanations: white space normalised, in the order of `item_ids`.
    """

    method: str
    seed: int
    annotator_id: str
    index: int
    item_ids: tuple[str, ...]
    explanations: tuple[str, ...]


def list_candidates(corpus: pl.DataFrame) -> list[str]:
    """Return the annotators of the corpus, sorted: the candidates a judge chooses among.

    Raises:
        CorpusError: if there are fewer than two annotators, or more than there are letters.
    """
    annotators = sorted(corpus["annotator_id"].unique())
    if not 2 <= len(annotators) <= MAX_CANDIDATES:
        raise CorpusError(
            f"attribution needs 2 to {MAX_CANDIDATES} annotators, the corpus has {len(annotators)}: "
            "leave out the judge and the validation set, or restrict the corpus"
        )
    return annotators


def draw_references(
    corpus: pl.DataFrame, *, n_references: int, seed: int, index: int = 0
) -> dict[str, tuple[str, ...]]:
    """Return `n_references` explanations of every annotator, from training items only.

    Items are taken in one random order for all annotators, each skipping the items he did not annotate: where
    everybody annotated everything the candidates are shown on the same items and differ in manner alone.

    Args:
        corpus: CORPUS.
        n_references: explanations per annotator, at least 1.
        seed: of the drawing.
        index: which draw of that seed.

    Raises:
        CorpusError: if an annotator has explained fewer than `n_references` training items.
    """
    training = _first_explanations(corpus.filter(pl.col("split") == "train"))
    order = np.random.default_rng(derive_seed(seed, "references", index)).permutation(_sorted_items(training))
    references = {}
    for annotator in list_candidates(corpus):
        own = training.get(annotator, {})
        chosen = [own[item] for item in order if item in own][:n_references]
        if len(chosen) < n_references:
            raise CorpusError(
                f"annotator {annotator!r} explained {len(chosen)} training items, n_references asks for "
                f"{n_references}: lower n_references or leave this annotator out"
            )
        references[annotator] = tuple(chosen)
    return references


def draw_groups(
    corpus: pl.DataFrame,
    generations: pl.DataFrame,
    methods: Sequence[str],
    *,
    group_size: int,
    seed: int,
    n_groups: int | None = None,
) -> list[Group]:
    """Return up to `n_groups` groups per method, seed and annotator, sorted by these and the group's index.

    Where the explanations do not suffice there are fewer groups; none is ever padded or overlaps another.

    Args:
        corpus: CORPUS.
        generations: GENERATIONS; the sampled rows with an explanation are used. Rows without an annotator
            (zero_shot) are drawn from for every annotator in turn.
        methods: which methods, `human` and `human_shuffled` among them if wanted.
        group_size: explanations per group, each of another item.
        seed: of the drawing.
        n_groups: groups per method, seed and annotator; None for as many as there are.

    Raises:
        CorpusError: if `generations` contains items that are not in the corpus, are training items, or stand in
            more than one split.
    """
    annotators = list_candidates(corpus)
    items = corpus.filter(pl.col("split") == _judged_split(corpus, generations))
    pools = _human_pools(items, methods, seed) | _generated_pools(generations, methods, annotators)
    order = {
        annotator: np.random.default_rng(derive_seed(seed, "groups", annotator)).permutation(
            sorted(items["item_id"].unique())
        )
        for annotator in annotators
    }
    groups = []
    for (method, pool_seed, annotator), pool in sorted(pools.items()):
        available = [str(item) for item in order[annotator] if item in pool]
        n_available = len(available) // group_size
        for index in range(n_available if n_groups is None else min(n_groups, n_available)):
            chosen = tuple(available[index * group_size : (index + 1) * group_size])
            texts = tuple(pool[item] for item in chosen)
            groups.append(Group(method, pool_seed, annotator, index, chosen, texts))
    return groups


def _judged_split(corpus: pl.DataFrame, generations: pl.DataFrame) -> str:
    """Return the split the generations are of; test if there are none."""
    splits = dict(corpus.select("item_id", "split").unique().iter_rows())
    generated = set(generations["item_id"].unique())
    if unknown := sorted(generated - splits.keys()):
        raise CorpusError(f"generations name {len(unknown)} items that are not in the corpus, e.g. {unknown[0]!r}")
    found = sorted({splits[item] for item in generated}) or ["test"]
    if len(found) > 1 or found == ["train"]:
        raise CorpusError(f"explanations to judge must be of one held-out split, the generations are of {found}")
    return found[0]


def _human_pools(items: pl.DataFrame, methods: Sequence[str], seed: int) -> dict[tuple[str, int, str], _Pool]:
    """Return people's own explanations of held-out items and, if asked for, the same with annotators shuffled."""
    written = _first_explanations(items)
    pools = {}
    if HUMAN in methods:
        pools |= {(HUMAN, seed, annotator): pool for annotator, pool in written.items()}
    if HUMAN_SHUFFLED in methods:
        shuffled = _shuffle_within_items(written, np.random.default_rng(derive_seed(seed, "shuffle")))
        pools |= {(HUMAN_SHUFFLED, seed, annotator): pool for annotator, pool in shuffled.items()}
    return pools


def _shuffle_within_items(written: Mapping[str, _Pool], rng: np.random.Generator) -> dict[str, _Pool]:
    """Return the pools with the authors of each item permuted at random; one may keep his own."""
    shuffled: dict[str, _Pool] = {annotator: {} for annotator in written}
    for item in _sorted_items(written):
        authors = sorted(annotator for annotator, pool in written.items() if item in pool)
        for author, position in zip(authors, rng.permutation(len(authors)), strict=True):
            shuffled[author][item] = written[authors[position]][item]
    return shuffled


def _generated_pools(
    generations: pl.DataFrame, methods: Sequence[str], annotators: Sequence[str]
) -> dict[tuple[str, int, str], _Pool]:
    """Return the sampled explanations by method, seed and annotator."""
    rows = generations.filter(
        (pl.col("decision") == "sampled") & pl.col("explanation").is_not_null() & pl.col("method").is_in(list(methods))
    )
    pools: dict[tuple[str, int, str], _Pool] = {}
    columns = ["method", "seed", "annotator_id", "item_id", "explanation"]
    for method, seed, annotator, item, explanation in rows.select(columns).sort(columns).iter_rows():
        text = identity_form(explanation)
        if not text:
            continue
        for target in annotators if annotator is None else [annotator]:
            pools.setdefault((method, seed, target), {}).setdefault(item, text)
    return {key: pool for key, pool in pools.items() if key[2] in annotators}


def _first_explanations(rows: pl.DataFrame) -> dict[str, _Pool]:
    """Return each annotator's explanations by item; of several labels for one item the first in sort order counts."""
    columns = ["annotator_id", "item_id", "label", "explanation"]
    pools: dict[str, _Pool] = {}
    for annotator, item, _, explanation in rows.select(columns).sort(columns).iter_rows():
        if text := identity_form(explanation):
            pools.setdefault(annotator, {}).setdefault(item, text)
    return pools


def _sorted_items(pools: Mapping[str, _Pool]) -> list[str]:
    return sorted({item for pool in pools.values() for item in pool})
