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
    "metric": pl.String,  # krippendorff_alpha_<level> | cohen_kappa | cohen_kappa_quadratic | percent_agreement |
    # label_entropy, label_entropy_normalised (means over items) | label_jsd (between two annotators' label
    # distributions; over all: mean over pairs), label_jsd_shuffled (its floor); entropies and divergences in bits
    "annotator_a": pl.String,  # null for figures over all annotators
    "annotator_b": pl.String,
    "value": pl.Float64,  # null when undefined
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "n_items": pl.Int64,
    "n_annotations": pl.Int64,
}

ITEM_LABELS = {
    "item_id": pl.String,
    "n_annotators": pl.Int64,
    "label_counts": pl.List(pl.Struct({"label": pl.String, "n": pl.Int64})),
    "entropy": pl.Float64,  # of the item's labels, bits
}

SUBJECTIVITY = {
    "subjectivity": pl.String,  # manifest | latent_pattern | latent_projective; the configured class where there is one
    "proposed": pl.String,  # what the rule says
    "rule": pl.String,  # the rule with the figures put in, a sentence
}

CONVERGENCE = {
    "quantity": pl.String,  # krippendorff_alpha_<level> | label_distribution_distance | attribution_accuracy
    "axis": pl.String,  # items | annotators: which of them accrue
    "n": pl.Int64,  # items or annotators in the sub-samples
    "mean": pl.Float64,  # over sub-samples
    "sd": pl.Float64,
    "ci_low": pl.Float64,  # 2.5% and 97.5% quantiles of the sub-samples
    "ci_high": pl.Float64,
    "n_repeats": pl.Int64,
    "fitted_mean": pl.Float64,  # the fitted curve at n; null where nothing could be fitted
    "fitted_width": pl.Float64,  # fitted width of the 95% interval at n
}

CONVERGENCE_FITS = {
    "quantity": pl.String,
    "axis": pl.String,
    "formula": pl.String,  # with the fitted numbers in it
    "asymptote": pl.Float64,
    "rmse": pl.Float64,
    "n_now": pl.Int64,
    "width_now": pl.Float64,
    "width_wanted": pl.Float64,
    "n_needed": pl.Int64,  # null where no number would do or nothing could be fitted
    "advice": pl.String,  # "about 120 more annotations per annotator would bring the interval under .10"
}

STABILITY = {
    "reduction": pl.String,
    "normalisation": pl.String,  # none | surface
    "classifier": pl.String,  # ngrams | embeddings
    "condition": pl.String,  # human | shuffled | label_fixed | label_left_out | genre_left_out
    "stratum": pl.String,  # the label or genre left out; null for all together
    "group_size": pl.Int64,
    "accuracy": pl.Float64,
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "p_value": pl.Float64,  # within-item permutation; null for the shuffled control
    # within-item permutation, a ridge classifier trained anew under each; condition human, stratum null only
    "p_value_retrained": pl.Float64,
    "n_groups": pl.Int64,
    "n_items": pl.Int64,
    "n_repeats": pl.Int64,  # foldings (human) or shuffles (shuffled) averaged over
    "chance": pl.Float64,
}

STABILITY_BY_ANNOTATOR = {
    "reduction": pl.String,
    "normalisation": pl.String,
    "classifier": pl.String,
    "annotator_id": pl.String,
    "group_size": pl.Int64,
    "accuracy": pl.Float64,  # condition human
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "n_items": pl.Int64,
}

FEATURE_TESTS = {
    "feature": pl.String,
    "unit": pl.String,
    "definition": pl.String,
    "variance_annotator": pl.Float64,  # shares of the total variance; they sum to 1
    "variance_item": pl.Float64,
    "variance_label": pl.Float64,
    "variance_residual": pl.Float64,
    "partial_omega_squared": pl.Float64,  # of annotator, given item and label
    "p_value": pl.Float64,  # within-item permutation
    "p_holm": pl.Float64,  # over all features
    "reliability": pl.Float64,  # split-half, Spearman-Brown
    "n_annotations": pl.Int64,
    "n_permutations": pl.Int64,
}

RELIABILITY = {
    "annotator_id": pl.String,
    "kind": pl.String,  # split_half | batch_to_batch
    "value": pl.Float64,  # correlation of the standardised feature profile between the halves
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "shuffled": pl.Float64,  # the same with annotators shuffled within items
    "n_items": pl.Int64,
    "n_repeats": pl.Int64,
}

STYLE_FEATURES = {
    "annotator_id": pl.String,
    "feature": pl.String,
    "unit": pl.String,
    "mean": pl.Float64,
    "others_mean": pl.Float64,
    "difference": pl.Float64,  # within items, in standard deviations
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "p_holm": pl.Float64,
}

STYLE_WORDS = {
    "annotator_id": pl.String,
    "term": pl.String,  # word or two-word phrase
    "z": pl.Float64,  # log-odds ratio with an informative Dirichlet prior (Monroe et al. 2008)
    "n_own": pl.Int64,
    "n_others": pl.Int64,
}

STYLE_EXAMPLES = {
    "annotator_id": pl.String,
    "item_id": pl.String,
    "label": pl.String,
    "explanation": pl.String,
    "log_probability": pl.Float64,  # held out, of the true annotator
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
    "similarity": pl.Float64,  # cosine of the two explanations' embeddings; null where the strategy needs none
    "weight": pl.Float64,  # >= 0, mean 1 over the pairs of one chosen response
    "split": pl.String,
    "prompt": MESSAGES,
    "chosen": MESSAGES,
    "rejected": MESSAGES,
}

PAIR_DROPS = {
    "item_id": pl.String,
    "annotator_id": pl.String,
    "rejected_annotator_id": pl.String,  # null when there was nobody to compare with
    "reason": pl.String,  # no_other_annotator | identical_response | relation_excluded | judged_invalid
    # | not_nearest | not_farthest
    "split": pl.String,
}

REFERENCE = {
    "sequence_id": pl.String,  # digest of the tokens of prompt and response
    "n_tokens": pl.Int64,  # of the response
    "logp": pl.Float64,  # log-probability of the response after the prompt, in nats
}

TRAINING_LOG = {
    "step": pl.Int64,
    "epoch": pl.Float64,
    "split": pl.String,  # train | validation
    "metric": pl.String,  # loss | chosen_logps | rejected_logps | margin | accuracy | learning_rate | grad_norm
    "value": pl.Float64,
}

GENERATIONS = {
    "method": pl.String,  # zero_shot | history | profile | sft | capo
    "seed": pl.Int64,
    "annotator_id": pl.String,  # the person imitated; null for zero_shot, which imitates nobody
    "item_id": pl.String,
    "decision": pl.String,  # sampled | greedy | constrained
    "text": pl.String,  # the model's response, unparsed
    "label": pl.String,  # null when unparseable
    "explanation": pl.String,  # null when unparseable
    "parse_status": pl.String,  # ok | no_label | unknown_label | no_explanation
    "label_logprobs": pl.List(pl.Float64),  # constrained only, in the task's label order, normalised; else null
    "n_prompt_tokens": pl.Int64,
    "n_tokens": pl.Int64,  # generated tokens
    "truncated": pl.Boolean,  # stopped by max_new_tokens
}

VALUE_PROFILES = {
    "annotator_id": pl.String,
    "seed": pl.Int64,
    "profile": pl.String,  # what the model wrote of the annotator
    "n_examples": pl.Int64,
    "n_prompt_tokens": pl.Int64,
    "n_tokens": pl.Int64,
    "truncated": pl.Boolean,
}

METRICS = {
    "method": pl.String,  # human | majority | zero_shot | history | profile | sft | capo | all
    "annotator_id": pl.String,  # "all" for the mean over annotators
    "decision": pl.String,  # sampled | greedy | constrained; null where it does not apply
    "metric": pl.String,
    "condition": pl.String,  # e.g. raw | surface_normalised | shuffled; null where it does not apply
    "classifier": pl.String,  # ngrams | embeddings; null where it does not apply
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
    "classifier": pl.String,
    "group_size": pl.Int64,
    "difference": pl.Float64,  # mean of a minus b, paired by item (or group)
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "effect_size": pl.Float64,  # difference over the standard deviation of the paired differences (Cohen's d_z)
    "p_value": pl.Float64,
    "p_holm": pl.Float64,  # over the comparisons of one metric's family
    "n": pl.Int64,
    "n_seeds": pl.Int64,
}

STYLE_DISTANCES = {
    "method": pl.String,
    "decision": pl.String,
    "annotator_id": pl.String,
    "feature": pl.String,
    "distance": pl.Float64,  # Wasserstein-1, generated to the person's held-out text, in his SD
    "others_distance": pl.Float64,  # of the other annotators' text to his, mean over them
    "halves_distance": pl.Float64,  # between random halves of his own text
    "n_generated": pl.Int64,
    "n_human": pl.Int64,
}

CROSS_ATTRIBUTION = {
    "method": pl.String,
    "decision": pl.String,
    "condition": pl.String,
    "classifier": pl.String,
    "group_size": pl.Int64,
    "imitated": pl.String,  # whom the text imitates
    "attributed": pl.String,  # whom it is attributed to
    "share": pl.Float64,
    "probability": pl.Float64,
    "n_seeds": pl.Int64,
}

EXCLUSIONS = {
    "method": pl.String,
    "decision": pl.String,
    "annotator_id": pl.String,
    "rule": pl.String,  # what was excluded and why, a sentence
    "value": pl.Float64,
    "threshold": pl.Float64,
}

RETENTION = {
    "method": pl.String,  # sft | capo
    "target": pl.String,  # annotator, or the shared adapter
    "seed": pl.Int64,
    "metric": pl.String,  # neutral_perplexity | zero_shot_label_agreement | zero_shot_decision_kept
    "base": pl.Float64,
    "tuned": pl.Float64,
    "change": pl.Float64,  # tuned / base for perplexity, tuned - base for agreement
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "n": pl.Int64,
}

RESULTS = {
    "corpus": pl.String,
    "model": pl.String,
    "layout": pl.String,  # per_annotator | shared
    "pair_strategy": pl.String,
    "kind": pl.String,  # metric | comparison
    "method": pl.String,  # of a comparison: the first of the two
    "compared_with": pl.String,  # null for a metric
    "decision": pl.String,
    "metric": pl.String,
    "condition": pl.String,
    "classifier": pl.String,
    "group_size": pl.Int64,
    "value": pl.Float64,  # mean over annotators; of a comparison: the difference
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "effect_size": pl.Float64,
    "p_value": pl.Float64,
    "p_holm": pl.Float64,
    "n": pl.Int64,
    "n_seeds": pl.Int64,
    "evaluation": pl.String,  # reference of the artifact the row was read from
}

VERDICTS = {
    "question_id": pl.String,
    "method": pl.String,  # human | human_shuffled | zero_shot | history | profile | sft | capo
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
    "agreement": 2,
    "convergence": 1,
    "stability": 3,
    "style": 1,
    "demonstrations": 1,
    "preferences": 3,
    "reference": 1,
    "adapter": 1,
    "value_profile": 1,
    "generations": 1,
    "evaluation": 2,
    "retention": 1,
    "experiment": 1,
    "verdicts": 2,
    "validation_tasks": 1,
    "validation_key": 1,
    "ratings": 2,
    "report": 1,
}
"""Version of each artifact kind's layout; raise it when columns or meaning change."""

TABLES: dict[str, dict[str, dict]] = {
    "annotations": {"data.parquet": ANNOTATIONS, "quarantine.parquet": QUARANTINE},
    "corpus": {"data.parquet": CORPUS},
    "agreement": {"data.parquet": AGREEMENT, "items.parquet": ITEM_LABELS, "subjectivity.parquet": SUBJECTIVITY},
    "convergence": {"data.parquet": CONVERGENCE, "fits.parquet": CONVERGENCE_FITS},
    "stability": {"data.parquet": STABILITY, "annotators.parquet": STABILITY_BY_ANNOTATOR},
    "style": {
        "data.parquet": FEATURE_TESTS,
        "reliability.parquet": RELIABILITY,
        "annotators.parquet": STYLE_FEATURES,
        "words.parquet": STYLE_WORDS,
        "examples.parquet": STYLE_EXAMPLES,
    },
    "demonstrations": {"data.parquet": DEMONSTRATIONS},
    "preferences": {"data.parquet": PREFERENCES, "drops.parquet": PAIR_DROPS},
    "reference": {"data.parquet": REFERENCE},
    "adapter": {"training_log.parquet": TRAINING_LOG},
    "value_profile": {"data.parquet": VALUE_PROFILES},
    "generations": {"data.parquet": GENERATIONS},
    "evaluation": {
        "data.parquet": METRICS,
        "comparisons.parquet": COMPARISONS,
        "style_distances.parquet": STYLE_DISTANCES,
        "cross_attribution.parquet": CROSS_ATTRIBUTION,
        "exclusions.parquet": EXCLUSIONS,
    },
    "retention": {"data.parquet": RETENTION},
    "experiment": {"data.parquet": RESULTS},
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
