"""Whether what an adapter learnt of a person on one corpus shows in what it writes of another corpus's items.

Adapters trained on a source corpus answer the held-out items of a target corpus, whose people are others and whose
task may be another, so there is no text by the imitated person to hold theirs against. Two questions remain: can the
response be read (parse_rate), and is it still attributed to the person imitated. The classifier knows the source's
people from their own explanations there. Topic would give the corpus away and tell nothing of the person, so content
words are masked and the surface normalised (`CONDITION`): what is left are function words and how they stand.

Floor (`FLOOR_CONDITION`): what the adapters of the *other* persons wrote, attributed to this one. A classifier that
takes all text about new items for the same person's gives that person an accuracy of 1, and a floor of 1 too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from capo_core.errors import CorpusError
from capo_core.evaluation.group_scores import ACCURACY, Attributions, GroupScores
from capo_core.evaluation.scores import Resampling, ScoreName, Scores, mean_scores
from capo_core.evaluation.tables import metric_rows, tabulate_metrics
from capo_core.stylometry.attribution import fit_attributor
from capo_core.stylometry.reduction import Variant, fit_reducer
from schemas.config import EvaluationConfig
from schemas.frames import CORPUS, GENERATIONS, check_columns

GROUP_SIZES = (1, 5)
CONDITION = "content_words_masked+surface"
FLOOR_CONDITION = f"other_adapters:{CONDITION}"
_VARIANT = Variant("content_words_masked", "surface", "ngrams")


def measure_transfer(
    source: pl.DataFrame, target: pl.DataFrame, generations: pl.DataFrame, config: EvaluationConfig
) -> pl.DataFrame:
    """Return parse_rate, and attribution_accuracy with its floor for k = 1 and 5, of adapters on another corpus.

    Args:
        source: CORPUS the adapters were trained on; the classifier learns from its training split.
        target: CORPUS whose items they answered.
        generations: GENERATIONS of the target's items, imitating the source's annotators.
        config: groups, resamples, confidence, seed; intervals resample the target's items, and seeds.

    Returns:
        METRICS by method, decision and annotator of the source; the floor under `FLOOR_CONDITION`.

    Raises:
        CorpusError: if the generations are of items that the target lacks, or imitate nobody of the source.
        ValueError: if a frame has other columns than its schema.
    """
    for frame, columns, name in ((source, CORPUS, "source"), (target, CORPUS, "target")):
        check_columns(frame, columns, name)
    rows = _check_generations(check_columns(generations, GENERATIONS, "generations"), source, target)
    annotators = sorted(source["annotator_id"].unique().to_list())
    resampling = Resampling(rows["item_id"].n_unique(), config)
    scored = _attribute(rows, source, annotators)
    items = rows["item_id"].unique().sort().to_list()
    metrics: list[tuple] = []
    for (method, decision), part in sorted(scored.partition_by("method", "decision", as_dict=True).items()):
        for scores in _score(str(method), str(decision), part, annotators, items):
            metrics += metric_rows(scores, annotators, resampling)
    return tabulate_metrics(metrics)


def _check_generations(generations: pl.DataFrame, source: pl.DataFrame, target: pl.DataFrame) -> pl.DataFrame:
    """Return the generations with their items' texts."""
    if generations.is_empty():
        raise CorpusError("there are no generations whose transfer could be measured")
    imitated = set(generations["annotator_id"].to_list())
    if strangers := sorted(str(name) for name in imitated - set(source["annotator_id"])):
        raise CorpusError(f"generations imitate {strangers}, of whom the source corpus knows nothing")
    items = target.select("item_id", "text_a", "text_b").unique("item_id")
    rows = generations.join(items, on="item_id", how="left").sort(
        "method", "decision", "seed", "annotator_id", "item_id"
    )
    if (unknown := rows.filter(pl.col("text_a").is_null())).height:
        raise CorpusError(f"generations name items that the target corpus lacks, e.g. {unknown['item_id'][0]!r}")
    return rows


def _attribute(rows: pl.DataFrame, source: pl.DataFrame, annotators: Sequence[str]) -> pl.DataFrame:
    """Return the rows with `log_probabilities`, one per annotator of the source, null without a readable text."""
    known = _strip(source.filter(pl.col("split") == "train")).drop_nulls("explanation")
    known = known.sort("item_id", "annotator_id", "label", "explanation")
    reducer = fit_reducer(_VARIANT, known, None)
    if reducer is None:
        raise RuntimeError(f"{_VARIANT} needs no encoder")
    attributor = fit_attributor(reducer.apply(known), known["annotator_id"].to_list())
    rows = _strip(rows)
    readable = rows.filter(pl.col("explanation").is_not_null())
    scores = attributor.log_probabilities(reducer.apply(readable), annotators).tolist()
    column = pl.Series("log_probabilities", scores, dtype=pl.List(pl.Float64))
    unread = rows.filter(pl.col("explanation").is_null())
    nothing = pl.lit(None, dtype=pl.List(pl.Float64)).alias("log_probabilities")
    return pl.concat([readable.with_columns(column), unread.with_columns(nothing)])


def _strip(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows with white space around explanations removed, null where nothing is left."""
    stripped = [None if text is None else text.strip() or None for text in rows["explanation"]]
    return rows.with_columns(pl.Series("explanation", stripped, dtype=pl.String))


def _score(
    method: str, decision: str, rows: pl.DataFrame, annotators: Sequence[str], items: Sequence[str]
) -> list[Scores]:
    """Return the figures of one method and decision."""
    seeds = tuple(rows["seed"].unique().sort().to_list())
    n = len(annotators)
    parsed = np.full((len(seeds), n, len(items)), np.nan)
    log_probabilities = np.full((*parsed.shape, n), np.nan)
    places = [{name: place for place, name in enumerate(axis)} for axis in (seeds, annotators, items)]
    columns = ["seed", "annotator_id", "item_id", "parse_status", "log_probabilities"]
    for seed, annotator, item, status, scores in rows.select(columns).iter_rows():
        cell = places[0][seed], places[1][annotator], places[2][item]
        parsed[cell] = status == "ok"
        if scores is not None:
            log_probabilities[cell] = scores
    found: list[Scores] = [mean_scores(ScoreName(method, decision, "parse_rate"), seeds, parsed)]
    # Slice by slice every annotator's place is taken by another's text: the floor needs no figure of its own.
    others = np.concatenate([np.roll(log_probabilities, shift, axis=1) for shift in range(1, n)])
    for condition, own_seeds, cells in ((CONDITION, seeds, log_probabilities), (FLOOR_CONDITION, (), others)):
        attributions = Attributions(cells)
        for size in GROUP_SIZES:
            name = ScoreName(method, decision, ACCURACY, condition, size, "ngrams")
            found.append(GroupScores(name, own_seeds, attributions))
    return found
