"""Columns of every table capo stores: the contract between stages.

One row of `ANNOTATIONS` is one annotation: (item, annotator, label, explanation). An annotator who gave an
item two labels has two rows. Column order is part of the contract.
"""

from __future__ import annotations

import polars as pl

MESSAGES = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
"""A conversation in the convention that TRL and chat templates read."""

ANNOTATIONS: dict[str, pl.DataType | type[pl.DataType]] = {
    "item_id": pl.String,  # first 16 hex digits of sha256 over both normalised texts
    "context_id": pl.String,  # items sharing any text share it; splits never separate it
    "text_a": pl.String,
    "text_b": pl.String,
    "annotator_id": pl.String,
    "label": pl.String,  # one of the task's label names; ordinal scores as decimal integers
    "explanation": pl.String,  # as written, surrounding white space included
    "source_file": pl.String,  # file name without directory
    "source_line": pl.Int64,  # 1-based line, or record number where the format has no lines
    "source_id": pl.String,  # the file's own item id, kept for tracing only
    "metadata": pl.String,  # JSON object with every other column of the source
}

QUARANTINE: dict[str, pl.DataType | type[pl.DataType]] = {
    "source_file": pl.String,
    "source_line": pl.Int64,
    "source_id": pl.String,  # nullable
    "annotator_id": pl.String,  # nullable
    "field": pl.String,  # which field is at fault
    "reason": pl.String,  # machine-readable, e.g. unknown_label
    "detail": pl.String,  # a sentence for the reader, naming the value and what to do
    "record": pl.String,  # the row as JSON, so that nothing is lost
}

CORPUS = {**ANNOTATIONS, "split": pl.String}  # train | validation | test

AGREEMENT = {
    "metric": pl.String,  # krippendorff_alpha_<level> | cohen_kappa | percent_agreement
    "annotator_a": pl.String,  # null for figures over all annotators
    "annotator_b": pl.String,
    "value": pl.Float64,  # null when undefined
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "n_items": pl.Int64,
    "n_annotations": pl.Int64,
}

STABILITY = {
    "reduction": pl.String,
    "normalisation": pl.String,  # none | surface
    "condition": pl.String,  # human | shuffled
    "group_size": pl.Int64,
    "accuracy": pl.Float64,
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "n_groups": pl.Int64,
    "n_items": pl.Int64,
    "n_repeats": pl.Int64,  # foldings (human) or shuffles (shuffled) averaged over
    "chance": pl.Float64,
}

DEMONSTRATIONS = {
    "item_id": pl.String,
    "annotator_id": pl.String,
    "label": pl.String,
    "split": pl.String,
    "prompt": MESSAGES,
    "completion": MESSAGES,
}

PREFERENCES = {
    "item_id": pl.String,
    "annotator_id": pl.String,  # the target, author of chosen
    "chosen_label": pl.String,
    "rejected_annotator_id": pl.String,
    "rejected_label": pl.String,
    "relation": pl.String,  # same_label | different_label
    "split": pl.String,
    "prompt": MESSAGES,
    "chosen": MESSAGES,
    "rejected": MESSAGES,
}

PAIR_DROPS = {
    "item_id": pl.String,
    "annotator_id": pl.String,
    "rejected_annotator_id": pl.String,  # null when there was nobody to compare with
    "reason": pl.String,  # no_other_annotator | identical_response | relation_excluded
    "split": pl.String,
}

TRAINING_LOG = {
    "step": pl.Int64,
    "epoch": pl.Float64,
    "split": pl.String,  # train | validation
    "metric": pl.String,  # loss | chosen_logps | rejected_logps | margin | accuracy | learning_rate | grad_norm
    "value": pl.Float64,
}

GENERATIONS = {
    "method": pl.String,  # zero_shot | history | sft | capo
    "seed": pl.Int64,
    "annotator_id": pl.String,  # the person imitated; null for zero_shot, which imitates nobody
    "item_id": pl.String,
    "decision": pl.String,  # sampled | constrained
    "text": pl.String,  # the model's response, unparsed
    "label": pl.String,  # null when unparseable
    "explanation": pl.String,  # null when unparseable
    "parse_status": pl.String,  # ok | no_label | unknown_label | no_explanation
    "label_logprobs": pl.List(pl.Float64),  # constrained only, in the task's label order, normalised; else null
    "n_prompt_tokens": pl.Int64,
    "n_tokens": pl.Int64,  # generated tokens
    "truncated": pl.Boolean,  # stopped by max_new_tokens
}

METRICS = {
    "method": pl.String,  # human | majority | zero_shot | history | sft | capo | all
    "annotator_id": pl.String,  # "all" for the mean over annotators
    "decision": pl.String,  # sampled | constrained; null where it does not apply
    "metric": pl.String,
    "condition": pl.String,  # e.g. raw | surface_normalised | shuffled; null where it does not apply
    "group_size": pl.Int64,  # null where it does not apply
    "value": pl.Float64,  # null = not measured
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "n": pl.Int64,  # what the interval resamples: items, groups or questions
    "n_seeds": pl.Int64,
}

COMPARISONS = {
    "method_a": pl.String,
    "method_b": pl.String,
    "decision": pl.String,
    "metric": pl.String,
    "condition": pl.String,
    "group_size": pl.Int64,
    "difference": pl.Float64,  # mean of a minus b, paired by item (or group)
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "p_value": pl.Float64,
    "n": pl.Int64,
    "n_seeds": pl.Int64,
}

VERDICTS = {
    "question_id": pl.String,
    "method": pl.String,  # human | human_shuffled | zero_shot | history | sft | capo
    "seed": pl.Int64,
    "annotator_id": pl.String,  # whom the judged group imitates (or who wrote it)
    "item_ids": pl.List(pl.String),
    "candidates": pl.List(pl.String),  # annotators in the order shown
    "verdict": pl.String,  # annotator named; null when unparseable
    "status": pl.String,  # ok | unparseable | failed
    "response": pl.String,  # what the judge answered, verbatim
    "candidate_scores": pl.List(pl.Float64),  # probability per candidate as shown, when the backend has one
    "judge": pl.String,  # backend and model
    "n_prompt_tokens": pl.Int64,
}

VALIDATION_TASKS = {
    "task_id": pl.String,
    "position": pl.Int64,
    "text_a": pl.String,
    "text_b": pl.String,
    "explanations": pl.List(pl.String),  # the blinded group to attribute (one item each)
    "references": pl.List(pl.Struct({"candidate": pl.String, "examples": pl.List(pl.String)})),
}

VALIDATION_KEY = {
    "task_id": pl.String,
    "signature": pl.String,
    "method": pl.String,
    "seed": pl.Int64,
    "annotator_id": pl.String,
    "item_ids": pl.List(pl.String),
    "candidate_annotators": pl.List(pl.Struct({"candidate": pl.String, "annotator_id": pl.String})),
}

RATINGS = {
    "task_id": pl.String,
    "rater_id": pl.String,
    "answer": pl.String,  # candidate letter, or "" for no answer
    "annotator_id": pl.String,  # annotator behind the answer
    "correct": pl.Boolean,
    "method": pl.String,
    "comment": pl.String,
}

SCHEMA_VERSIONS = {
    "annotations": 1,
    "corpus": 1,
    "agreement": 1,
    "stability": 1,
    "demonstrations": 1,
    "preferences": 1,
    "adapter": 1,
    "generations": 1,
    "evaluation": 1,
    "verdicts": 1,
    "validation_tasks": 1,
    "validation_key": 1,
    "ratings": 1,
    "report": 1,
}
"""Version of each artifact kind's layout; raise it when columns or meaning change."""

TABLES: dict[str, dict[str, dict]] = {
    "annotations": {"data.parquet": ANNOTATIONS, "quarantine.parquet": QUARANTINE},
    "corpus": {"data.parquet": CORPUS},
    "agreement": {"data.parquet": AGREEMENT},
    "stability": {"data.parquet": STABILITY},
    "demonstrations": {"data.parquet": DEMONSTRATIONS},
    "preferences": {"data.parquet": PREFERENCES, "drops.parquet": PAIR_DROPS},
    "adapter": {"training_log.parquet": TRAINING_LOG},
    "generations": {"data.parquet": GENERATIONS},
    "evaluation": {"data.parquet": METRICS, "comparisons.parquet": COMPARISONS},
    "verdicts": {"data.parquet": VERDICTS, "metrics.parquet": METRICS},
    "validation_tasks": {"data.parquet": VALIDATION_TASKS},
    "validation_key": {"data.parquet": VALIDATION_KEY},
    "ratings": {"data.parquet": RATINGS, "metrics.parquet": METRICS},
    "report": {},
}
"""Parquet files of each artifact kind and their columns; the first file is the main table."""


def check_columns(frame: pl.DataFrame, columns: dict, name: str) -> pl.DataFrame:
    """Return `frame` with exactly `columns`, in their order.

    Raises:
        ValueError: if a column is missing, superfluous or of another type; names the table and each column.
    """
    problems = [f"missing column {c!r}" for c in columns if c not in frame.columns]
    problems += [f"unexpected column {c!r}" for c in frame.columns if c not in columns]
    problems += [
        f"column {c!r} is {frame.schema[c]}, expected {t}"
        for c, t in columns.items()
        if c in frame.columns and frame.schema[c] != t
    ]
    if problems:
        raise ValueError(f"table {name}: " + "; ".join(problems))
    return frame.select(list(columns))


def empty(columns: dict) -> pl.DataFrame:
    """Return a frame with `columns` and no rows."""
    return pl.DataFrame(schema=columns)
