"""Methods against each other in a judge's eyes: paired by group, with intervals, tests and correction.

`judge_win_rate` (pairwise): the share of pairs of groups in which the judge prefers method a, less that in which it
prefers method b; a tie of the two orders counts half for each. `judge_accuracy` (attribution)
and `judge_same_author_acceptance`: the difference of the two methods' credit on groups of the same items, annotator and
seed; people's own text stands at every seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl

from capo_core.judging.figures import ALL, MAIN_METRICS, find_informative
from capo_core.judging.groups import HUMAN, HUMAN_OTHER
from capo_core.judging.intervals import Cells, mean_over_annotators, none_if_nan, resample_means
from capo_core.judging.judged_groups import (
    CONDITIONS,
    JudgedGroup,
    collect_cells,
    iterate_parts,
    partition_groups,
    read_groups,
)
from capo_core.judging.pairwise import list_pairs
from capo_core.seeding import derive_seed
from capo_core.statistics.multiplicity import holm_adjust
from capo_core.statistics.significance import N_PERMUTATIONS, paired_permutation_test, seeds_and_items_p_value
from schemas.frames import COMPARISONS, JUDGE_PAIRS, check_columns
from schemas.judge import JudgeConfig, Protocol

COMPARED_METRICS: dict[Protocol, str] = {**MAIN_METRICS, "pairwise": "judge_win_rate"}


def compare_verdicts(
    verdicts: pl.DataFrame,
    config: JudgeConfig,
    annotators: Sequence[str],
    *,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    n_permutations: int = N_PERMUTATIONS,
) -> pl.DataFrame:
    """Return every pair of methods compared by every judge, a COMPARISONS frame; `classifier` is the judge.

    The interval is the percentile bootstrap over seeds and, within annotators, groups. p is that of swapping the two
    methods group by group (`paired_permutation_test`); with several seeds the greater of it and the p-value that takes
    seeds as drawn at random too (`seeds_and_items_p_value`). p_holm corrects over the pairs of methods of one judge,
    metric and condition.

    Args:
        verdicts: VERDICTS of one judge or several.
        config: what was asked.
        annotators: the people.
        n_bootstrap: resamples.
        confidence: of the intervals.
        n_permutations: sign patterns at most.

    Returns:
        By judge, metric and condition; capo against sft first.
    """
    seed = derive_seed(config.seed, "judge comparisons")
    sizes = {"n_bootstrap": n_bootstrap, "confidence": confidence, "n_permutations": n_permutations}
    rows = []
    for judge, protocol, condition, groups in iterate_parts(verdicts, config):
        name = {"metric": COMPARED_METRICS[protocol], "condition": condition, "classifier": judge}
        differences = _list_differences(groups, config, annotators)
        rows += _correct([_compare(pair, cells, seed, **sizes) | name for pair, cells in differences])
    rows = [row | {"decision": "sampled", "group_size": config.group_size} for row in rows]
    return check_columns(pl.DataFrame(rows, schema=COMPARISONS), COMPARISONS, "judge comparisons")


def _list_differences(
    groups: Sequence[JudgedGroup], config: JudgeConfig, annotators: Sequence[str]
) -> Iterator[tuple[tuple[str, str], Cells]]:
    """Yield each pair of methods with the difference of every group, by annotator."""
    for first, second in list_pairs(config):
        direct = [group for group in groups if (group.method, group.compared_with) == (first, second)]
        if direct:
            yield (first, second), collect_cells(direct, annotators, lambda group: 2.0 * group.credit - 1.0)
            continue
        sides = []
        for method in (first, second):
            own = [group for group in groups if group.method == method and group.compared_with is None]
            sides.append(collect_cells(own, annotators, lambda group: group.credit))
        yield (
            (first, second),
            [_subtract(one, other, first == HUMAN, second == HUMAN) for one, other in zip(*sides, strict=True)],
        )


def _subtract(
    first: dict[tuple[int, Any], float], second: dict[tuple[int, Any], float], first_human: bool, second_human: bool
) -> dict[tuple[int, Any], float]:
    """Return the differences of the groups that both sides have; people's text has no seed and meets all of them."""
    by_items = [{items: value for (_, items), value in side.items()} for side in (first, second)]
    if first_human:
        return {key: by_items[0][key[1]] - value for key, value in second.items() if key[1] in by_items[0]}
    if second_human:
        return {key: value - by_items[1][key[1]] for key, value in first.items() if key[1] in by_items[1]}
    return {key: value - second[key] for key, value in first.items() if key in second}


def _compare(
    pair: tuple[str, str], cells: Cells, seed: int, *, n_bootstrap: int, confidence: float, n_permutations: int
) -> dict[str, Any]:
    """Return the figures of one comparison, without its name and correction."""
    filled = [own for own in cells if own]
    estimate = mean_over_annotators(filled, n_bootstrap=n_bootstrap, confidence=confidence, seed=seed)
    seeds = sorted({of_seed for own in filled for of_seed, _ in own})
    # What each group contributes to the difference, seeds together: the contributions sum to the difference.
    contributions = [
        sum(value for (_, items), value in own.items() if items == unit) / len(own) / len(filled)
        for own in filled
        for unit in dict.fromkeys(items for _, items in own)
    ]
    p_value = paired_permutation_test(np.array(contributions), seed=seed, n_permutations=n_permutations)
    if len(seeds) > 1 and estimate.value is not None:
        over_groups = resample_means(filled, n_bootstrap=n_bootstrap, seed=seed, hold_seeds=True)
        by_seed = [_mean_at_seed(filled, of_seed) for of_seed in seeds]
        over_seeds = seeds_and_items_p_value(estimate.value, over_groups, np.array(by_seed), estimate.n)
        p_value = float(np.max([p_value, over_seeds]))
    return {
        "method_a": pair[0],
        "method_b": pair[1],
        "difference": estimate.value,
        "ci_low": estimate.ci_low,
        "ci_high": estimate.ci_high,
        "effect_size": _effect_size(filled),
        "p_value": none_if_nan(p_value),
        "n": estimate.n,
        "n_seeds": len(seeds),
    }


def _mean_at_seed(cells: Cells, seed: int) -> float:
    """Return the mean over annotators at one seed; NaN where an annotator has no value at it."""
    values = [[value for (of_seed, _), value in own.items() if of_seed == seed] for own in cells]
    return float(np.mean([np.mean(own) for own in values])) if all(values) else float("nan")


def _effect_size(cells: Cells) -> float | None:
    """Return Cohen's d_z: the mean difference of a group, seeds averaged, over its standard deviation."""
    units: dict[Any, list[float]] = {}
    for place, own in enumerate(cells):
        for (_, items), value in own.items():
            units.setdefault((place, items), []).append(value)
    values = [np.mean(of_unit) for of_unit in units.values()]
    spread = float(np.std(values)) if len(values) > 1 else 0.0
    return float(np.mean(values)) / spread if spread > 1e-12 else None


def _correct(family: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of one family with p_holm."""
    p_values = np.array([float("nan") if row["p_value"] is None else row["p_value"] for row in family])
    adjusted = holm_adjust(p_values)
    return [row | {"p_holm": none_if_nan(float(p_holm))} for row, p_holm in zip(family, adjusted, strict=True)]


def count_wins(
    verdicts: pl.DataFrame, config: JudgeConfig, annotators: Sequence[str], metrics: pl.DataFrame
) -> pl.DataFrame:
    """Return how often each method of each pair was preferred, a JUDGE_PAIRS frame.

    Args:
        verdicts: VERDICTS of one judge or several.
        config: what was asked.
        annotators: the people.
        metrics: of `summarise_verdicts`, which say whether each judge is informative.

    Returns:
        By judge, condition and pair, capo against sft first, the calibration human against human_other last; all
        annotators together before each.
    """
    groups = partition_groups(read_groups(verdicts))
    calibration = [(HUMAN, HUMAN_OTHER)] if HUMAN in config.methods else []
    rows = []
    for judge in sorted({judge for judge, protocol, _ in groups if protocol == "pairwise"}):
        for condition in (CONDITIONS[normalisation] for normalisation in config.normalisations):
            informative = find_informative(metrics, judge, "pairwise", condition)
            of_part = groups.get((judge, "pairwise", condition), [])
            for pair in [*list_pairs(config), *calibration]:
                of_pair = [group for group in of_part if (group.method, group.compared_with) == pair]
                for who in (ALL, *annotators):
                    own = [group for group in of_pair if who in (ALL, group.annotator_id)]
                    counts = _count_outcomes(own)
                    rows.append((judge, condition, *pair, who, *counts, informative))
    return check_columns(pl.DataFrame(rows, schema=JUDGE_PAIRS, orient="row"), JUDGE_PAIRS, "judge pairs")


def _count_outcomes(groups: Sequence[JudgedGroup]) -> tuple[int, int, int, int]:
    """Return wins of the first method, ties, wins of the second, and pairs of groups without a result."""
    measured = [group for group in groups if group.is_measured]
    n_first = sum(group.verdict == group.method for group in measured)
    n_second = sum(group.verdict == group.compared_with for group in measured)
    return n_first, len(measured) - n_first - n_second, n_second, len(groups) - len(measured)
