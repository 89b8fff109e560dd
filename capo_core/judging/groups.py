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

HUMAN_OTHER = "human_other"
"""Another annotator's explanations, held against the references of somebody who did not write them."""

MAX_CANDIDATES = 26

_Pool = dict[str, str]  # item_id -> explanation


@dataclass(frozen=True)
class Group:
    """Explanations of one author for different items.

    Attributes:
        method: human | human_shuffled | human_other | zero_shot | history | profile | sft | capo.
        seed: seed of the generations; the drawing seed for people's own explanations.
        annotator_id: who wrote them or whom they imitate; for zero_shot, the nominal target; for human_other, whom
            they are held against.
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


def keep_candidates(
    corpus: pl.DataFrame, generations: pl.DataFrame, n_references: int
) -> tuple[pl.DataFrame, pl.DataFrame, list[str]]:
    """Return corpus and generations of those who have explained training items enough to be known by, and the others.

    Somebody new has no references yet; the others are judged all the same.

    Args:
        corpus: CORPUS.
        generations: GENERATIONS.
        n_references: explanations that each candidate is shown by.

    Returns:
        Both frames without the rows of those left out and without items that only they annotated, and the ids of
        these people, sorted.
    """
    training = _first_explanations(corpus.filter(pl.col("split") == "train"))
    everybody = sorted(corpus["annotator_id"].unique().to_list())
    left_out = [name for name in everybody if len(training.get(name, {})) < n_references]
    if not left_out:
        return corpus, generations, []
    # Null stands for nobody in particular, whom zero_shot imitates.
    is_kept = ~pl.col("annotator_id").is_in(left_out) | pl.col("annotator_id").is_null()
    kept = corpus.filter(is_kept)
    return kept, generations.filter(is_kept).join(kept, on="item_id", how="semi", maintain_order="left"), left_out


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
    orders = _order_items(items, annotators, seed)
    groups = []
    for (method, pool_seed, annotator), pool in sorted(pools.items()):
        for index, chosen in enumerate(_cut(orders[annotator], (pool,), group_size, n_groups)):
            groups.append(_group(method, pool_seed, annotator, index, chosen, pool))
    return groups


def draw_group_pairs(
    corpus: pl.DataFrame,
    generations: pl.DataFrame,
    pairs: Sequence[tuple[str, str]],
    *,
    group_size: int,
    n_groups: int,
    seed: int,
) -> list[tuple[Group, Group]]:
    """Return groups of two methods about the same items, by pair of methods, seed, annotator and index.

    Generations of one seed meet those of the same seed; people's own explanations meet those of every seed and take
    that seed as theirs.

    Args:
        corpus: CORPUS.
        generations: GENERATIONS.
        pairs: methods to hold against each other.
        group_size: explanations per group, each of another item.
        n_groups: pairs of groups per pair of methods, seed and annotator, at most.
        seed: of the drawing.

    Raises:
        CorpusError: see `draw_groups`.
    """
    annotators = list_candidates(corpus)
    methods = sorted({method for pair in pairs for method in pair})
    items = corpus.filter(pl.col("split") == _judged_split(corpus, generations))
    generated = _generated_pools(generations, methods, annotators)
    people = {key[2]: pool for key, pool in _human_pools(items, methods, seed).items()}
    orders = _order_items(items, annotators, seed)
    found = []
    for pair in pairs:
        for pool_seed, annotator in sorted({key[1:] for key in generated if key[0] in pair}):
            pools = [
                people.get(annotator, {}) if method == HUMAN else generated.get((method, pool_seed, annotator), {})
                for method in pair
            ]
            for index, chosen in enumerate(_cut(orders[annotator], pools, group_size, n_groups)):
                first, second = (
                    _group(method, pool_seed, annotator, index, chosen, pool)
                    for method, pool in zip(pair, pools, strict=True)
                )
                found.append((first, second))
    return found


def draw_other_groups(
    corpus: pl.DataFrame, generations: pl.DataFrame, *, group_size: int, n_groups: int, seed: int
) -> list[tuple[Group, Group]]:
    """Return pairs of an annotator's own group (`human`) and one other annotator's about the same items.

    The other annotators take turns, from group to group, in an order drawn for each annotator; one without enough
    items in common is passed over.

    Args:
        corpus: CORPUS.
        generations: GENERATIONS, which say what items are judged.
        group_size: explanations per group, each of another item.
        n_groups: pairs per annotator, at most.
        seed: of the drawing.

    Returns:
        By annotator and index; `annotator_id` of both groups is the annotator whose references they are held against.

    Raises:
        CorpusError: see `draw_groups`.
    """
    annotators = list_candidates(corpus)
    items = corpus.filter(pl.col("split") == _judged_split(corpus, generations))
    written = _first_explanations(items)
    orders = _order_items(items, annotators, seed)
    pairs = []
    for annotator in annotators:
        others = [name for name in annotators if name != annotator]
        drawn = np.random.default_rng(derive_seed(seed, "others", annotator)).permutation(len(others))
        left = orders[annotator]
        for index in range(n_groups):
            turn = index % len(others)
            in_turn = [others[i] for i in (*drawn[turn:], *drawn[:turn])]
            pools = [(written.get(annotator, {}), written.get(other, {})) for other in in_turn]
            cuts = [(chosen, pair) for pair in pools for chosen in _cut(left, pair, group_size, 1)]
            if not cuts:
                break
            chosen, (own, other) = cuts[0]
            first = _group(HUMAN, seed, annotator, index, chosen, own)
            pairs.append((first, _group(HUMAN_OTHER, seed, annotator, index, chosen, other)))
            left = [item for item in left if item not in chosen]
    return pairs


def _group(method: str, seed: int, annotator: str, index: int, items: tuple[str, ...], pool: _Pool) -> Group:
    return Group(method, seed, annotator, index, items, tuple(pool[item] for item in items))


def _order_items(items: pl.DataFrame, annotators: Sequence[str], seed: int) -> dict[str, list[str]]:
    """Return the order in which each annotator's groups take the items; it does not depend on the method."""
    names = sorted(items["item_id"].unique())
    orders = {}
    for annotator in annotators:
        drawn = np.random.default_rng(derive_seed(seed, "groups", annotator)).permutation(len(names))
        orders[annotator] = [names[i] for i in drawn]
    return orders


def _cut(order: Sequence[str], pools: Sequence[_Pool], group_size: int, n_groups: int | None) -> list[tuple[str, ...]]:
    """Return groups of the items that stand in all pools, in order: as many as there are, at most `n_groups`."""
    available = [item for item in order if all(item in pool for pool in pools)]
    n_available = len(available) // group_size
    n_groups = n_available if n_groups is None else min(n_groups, n_available)
    return [tuple(available[index * group_size : (index + 1) * group_size]) for index in range(n_groups)]


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
