"""What models answered and how it compares with the people."""

from __future__ import annotations

import polars as pl

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
    "classifier": pl.String,  # ngrams | embeddings; of judge_* the judge; null where it does not apply
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

PROMOTION = {
    "criterion": pl.String,  # imitation | label_agreement | retention | copying | consent
    "value": pl.Float64,  # null = not measured, or not a number
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "p_value": pl.Float64,
    "n": pl.Int64,
    "holds": pl.Boolean,
    "reason": pl.String,  # a sentence with the figure and the bar
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
