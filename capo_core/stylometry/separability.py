"""Stability of style: how well held-out explanations by people are attributed to the people who wrote them.

Training and validation items only. Nothing here feeds another stage, but test explanations stay unread until the
evaluation, so that no choice made on seeing these figures is a choice made on the test set.

Conditions:
    human: every explanation attributed by a model of explanations of other contexts; groups of any labels.
    shuffled: the floor. Annotators permuted within every item, anew in each repeat, then everything as for human,
        training included: what the pipeline finds where there is no style. Its mean over shuffles is chance (VariErr,
        single explanations: .250 and .251 over 40 and 120 shuffles by text and by embeddings), but one shuffle's
        classifier may have learnt a chance habit that groups then add up: for k = 20 one shuffle gave .16 to .34, by
        variant. More repeats bring the floor nearer to chance.
    label_fixed: as human, but every group consists of explanations of one and the same label.
    label_left_out: besides, the model has seen no explanation of the label it is tested on. A style that survives is
        none of label habits. Stratum null mixes labels within groups, each explanation scored without its own.
    genre_left_out: the same with genres, where the items have them.
The label and genre conditions are measured for the variants of `is_stratified` only, to bound the time.

Groups of k are drawn over all folds alike: each member was scored without its own item, folds of few items need no
exception, and accuracies at different k rest on the same draws of items. (Groups confined to one fold gave the same
accuracies to within .01 on VariErr at k = 3, 5, 10.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from scipy import sparse

from capo_core.progress import Progress, silent
from capo_core.stylometry.attribution import fit_featuriser
from capo_core.stylometry.attribution_permutation import Features, permute_attribution
from capo_core.stylometry.folding import Explanations, Folding, make_foldings, read_explanations
from capo_core.stylometry.group_figures import Accuracies, Figure, GroupMeter, Measure, list_measures
from capo_core.stylometry.held_out import HeldOutScores, plan_splits, score_held_out
from capo_core.stylometry.reduction import Embed, Variant, fit_reducer, list_variants, remember
from capo_core.stylometry.strata import Strata, genre_strata, label_strata
from schemas.config import StabilityConfig
from schemas.frames import STABILITY, STABILITY_BY_ANNOTATOR, check_columns

STRATIFIED = (("none", "ngrams"), ("shared_words_masked", "ngrams"), ("embedding_minus_item_mean", "embeddings"))
"""Reductions and classifiers for which the label and genre conditions are measured."""

MAX_RETRAINED_ROWS = 12_000
"""Explanations up to which the test with retraining is made: it holds 5 matrices of rows by rows, here 6 GB."""


def stability_table(
    corpus: pl.DataFrame,
    config: StabilityConfig,
    embed: Embed | None,
    *,
    genre: str | None = None,
    progress: Progress = silent,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return attribution accuracy of groups of held-out explanations, in all and by annotator, with control and test.

    accuracy = mean over repeats and annotators of the share of an annotator's groups attributed to him (over labels
    too for label_fixed in all). Intervals are percentile bootstrap intervals over items (see
    `capo_core.stylometry.groups`); the fitted classifiers are taken as given, so the spread of another training sample
    is not in them. Where all groups are right the interval has no width.

    p_value tests the hypothesis that authors are exchangeable within items (within items and labels, or genres, for
    the label and genre conditions) by `config.n_permutations` permutations of single explanations' authors
    (`capo_core.stylometry.exchangeability`). The hypothesis does not depend on how many explanations are grouped, so
    one test serves all group sizes of a condition and stratum. It is null for the control, and where there were too
    few explanations to test.

    p_value_retrained tests the same hypothesis with a classifier trained anew under each permutation
    (`capo_core.stylometry.attribution_permutation`), over all folds of the first repeat; neither replaces the other.
    p_value keeps the verdicts of the classifier whose accuracy is given, and so must take them from a chain of ever
    larger training sets that leaves the first fold unjudged; p_value_retrained judges every explanation by a model of
    all other folds, and pays for it with a ridge classifier in place of the logistic one. Features are computed on all
    rows and see no owner, so that it is exact. It is given for condition human and stratum null, and is null where
    the variant was not measured, there are more than `MAX_RETRAINED_ROWS` explanations (memory), no item is explained
    by two annotators, or all explanations have the same features.

    Args:
        corpus: CORPUS; rows of other splits than train and validation are not read.
        config: variants, group sizes, folds, repeats, resamples, permutations, seed.
        embed: sentence encoder, n texts to [n, d]; without one what needs embeddings is not measured.
        genre: key of the items' genre in the metadata; without one, or where no item has it, there are no genre rows.
        progress: told of every training set fitted, over all variants and repeats.

    Returns:
        STABILITY, one row per variant, condition, stratum and group size; and STABILITY_BY_ANNOTATOR, condition human.
        Not measured (no encoder; k greater than the items of every annotator): accuracy and bounds null, n_groups 0.
        Annotators with fewer than k items have no groups of that size; the others' mean is given.

    Raises:
        CorpusError: if there are fewer than two annotators or fewer contexts than folds.
    """
    explanations = read_explanations(corpus)
    foldings = make_foldings(explanations, config)
    strata = _find_strata(explanations, genre)
    variants = list_variants(config.reductions, config.normalisations, config.classifiers)
    strata_of = {variant: strata if is_stratified(variant, config) else {} for variant in variants}
    plans = {
        variant: plan_splits(explanations, foldings, {f"{name}_left_out": s for name, s in found.items()})
        for variant, found in strata_of.items()
    }
    encoder = None if embed is None else remember(embed)
    n_total = sum(plan.n_fits for v, plan in plans.items() if encoder is not None or v.classifier == "ngrams")
    n_done = 0

    def tell() -> None:
        nonlocal n_done
        n_done += 1
        progress(n_done, n_total)

    meter = GroupMeter(explanations, foldings, config)
    table, by_annotator = [], []
    for variant, plan in plans.items():
        scores = score_held_out(explanations, variant, plan, encoder, tell)
        p_retrained = _test_retrained(explanations, variant, foldings[0], encoder, config)
        for measure in list_measures(explanations, strata_of[variant]):
            rows, own_rows = _tabulate(variant, measure, scores, meter, explanations, config.group_sizes, p_retrained)
            table += rows
            by_annotator += own_rows
    return _frame(table, STABILITY, "stability"), _frame(by_annotator, STABILITY_BY_ANNOTATOR, "stability by annotator")


def is_stratified(variant: Variant, config: StabilityConfig) -> bool:
    """Return whether the label and genre conditions are measured for a variant.

    Those of `STRATIFIED`, surface-normalised where the configuration has that normalisation at all.
    """
    strictest = "surface" if "surface" in config.normalisations else "none"
    return (variant.reduction, variant.classifier) in STRATIFIED and variant.normalisation == strictest


def _find_strata(explanations: Explanations, genre: str | None) -> dict[str, Strata]:
    """Return the strata by label and by genre, without those of which there are fewer than two."""
    found = {"label": label_strata(explanations.rows["label"])}
    if genre is not None:
        found["genre"] = genre_strata(explanations.rows["metadata"], genre)
    return {name: strata for name, strata in found.items() if len(strata.names) > 1}


def _test_retrained(
    explanations: Explanations, variant: Variant, folding: Folding, embed: Embed | None, config: StabilityConfig
) -> float | None:
    """Return the p-value of one variant with a classifier trained anew under each permutation; None for none."""
    if len(explanations.owners) > MAX_RETRAINED_ROWS:
        return None
    reducer = fit_reducer(variant, explanations.rows, embed)
    if reducer is None:
        return None
    _, features = fit_featuriser(reducer.apply(explanations.rows))
    if not _vary(features):
        return None
    found = permute_attribution(
        features,
        explanations.owners,
        explanations.items,
        folding.fold_of,
        n_permutations=config.n_permutations,
        seed=config.seed,
    )
    return None if np.isnan(found.p_value) else found.p_value


def _vary(features: Features) -> bool:
    """Return whether any two rows differ."""
    span = features.max(axis=0) - features.min(axis=0)
    return bool((span.data if sparse.issparse(span) else span).any())


def _tabulate(
    variant: Variant,
    measure: Measure,
    scores: HeldOutScores | None,
    meter: GroupMeter,
    explanations: Explanations,
    group_sizes: Sequence[int],
    p_retrained: float | None,
) -> tuple[list[tuple], list[tuple]]:
    """Return the rows of one variant and measure, and (condition human only) those by annotator, size by size."""
    described = (variant.reduction, variant.normalisation, variant.classifier)
    annotators = explanations.annotators
    p_value = None if scores is None else meter.measure_p_value(measure, scores)
    rows, own_rows = [], []
    is_human = measure.condition == "human"
    p_values = (p_value, p_retrained if is_human else None)
    told_apart = annotators if is_human else ()
    for size in group_sizes:
        accuracies = None if scores is None else meter.measure_groups(measure, scores, size)
        f = _summarise(accuracies, measure, explanations)
        figures = (f.accuracy, f.ci_low, f.ci_high, *p_values, f.n_groups, f.n_items, f.n_repeats)
        rows.append((*described, measure.condition, measure.stratum, size, *figures, 1.0 / len(annotators)))
        for number, name in enumerate(told_apart):
            f = _summarise(accuracies, measure, explanations, number)
            own_rows.append((*described, name, size, f.accuracy, f.ci_low, f.ci_high, f.n_items))
    return rows, own_rows


def _summarise(
    accuracies: Accuracies | None, measure: Measure, explanations: Explanations, annotator: int | None = None
) -> Figure:
    """Return the figure, of all annotators or of one; an empty one where nothing could be measured."""
    if accuracies is not None:
        return accuracies.summarise(annotator)
    included = np.any(measure.parts, axis=0)
    if annotator is not None:
        included &= explanations.owners == annotator
    return Figure(None, None, None, 0, len(np.unique(explanations.items[included])), 0)


def _frame(rows: list[tuple], columns: dict, name: str) -> pl.DataFrame:
    return check_columns(pl.DataFrame(rows, schema=columns, orient="row"), columns, name)
