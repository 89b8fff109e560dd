"""What language models and people said when asked who wrote it."""

from __future__ import annotations

import polars as pl

VERDICTS = {
    "question_id": pl.String,
    "protocol": pl.String,  # attribution | pairwise | same_author
    # human | human_shuffled | human_other (another annotator's own text) | zero_shot | history | profile | sft | capo;
    # pairwise: one of the two
    "method": pl.String,
    "compared_with": pl.String,  # pairwise: the other method; else null
    "seed": pl.Int64,
    # who wrote the judged group or whom it imitates; pairwise and same_author: whose references it is held against
    "annotator_id": pl.String,
    "item_ids": pl.List(pl.String),
    "normalisation": pl.String,  # none | surface, of judged text and references alike
    "order": pl.Int64,  # number of the order in which the candidates were shown
    # as shown; attribution: annotators; pairwise: the two methods; same_author: same and different
    "candidates": pl.List(pl.String),
    "verdict": pl.String,  # candidate named; null unless status is ok
    "status": pl.String,  # ok | unparseable | failed | not_asked (budget spent)
    "response": pl.String,  # what the judge answered, verbatim, or why there is no answer
    "candidate_scores": pl.List(pl.Float64),  # probability per candidate as shown, when the backend has one
    "judge": pl.String,  # backend and model
    "prompt_version": pl.String,  # name of the prompt file
    "n_prompt_tokens": pl.Int64,  # of all attempts, null where unknown; likewise the next
    "n_answer_tokens": pl.Int64,
    "n_attempts": pl.Int64,
    "seconds": pl.Float64,  # all attempts and pauses; null where not measured
}

JUDGE_PAIRS = {
    "judge": pl.String,
    "condition": pl.String,  # raw | surface_normalised
    "method_a": pl.String,
    "method_b": pl.String,  # human_other: another annotator's own text about the same items
    "annotator_id": pl.String,  # "all" for all annotators together
    "n_wins_a": pl.Int64,  # pairs of groups of which both orders name method_a
    "n_ties": pl.Int64,  # the orders disagree
    "n_wins_b": pl.Int64,
    "n_unmeasured": pl.Int64,  # an order without a readable verdict
    "informative": pl.Boolean,  # whether the judge tells real people apart in this protocol; null: unknown
}

JUDGE_AGREEMENT = {
    "protocol": pl.String,
    "condition": pl.String,  # raw | surface_normalised
    "source": pl.String,  # human: people's own groups; models: generated ones; pairwise: pairs of methods
    "metric": pl.String,  # krippendorff_alpha_nominal (all judges together) | cohen_kappa | percent_agreement
    "judge_a": pl.String,  # null for figures over all judges
    "judge_b": pl.String,  # a judge, or "stylometry": the n-gram classifier on the same groups
    "value": pl.Float64,  # null when undefined
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "n_groups": pl.Int64,  # groups both gave a verdict on
    "n_verdicts": pl.Int64,
}

VALIDATION_TASKS = {
    "task_id": pl.String,
    "position": pl.Int64,
    "text_a": pl.String,
    "text_b": pl.String,
    "explanations": pl.List(pl.String),  # the blinded group to attribute (one item each)
    "references": pl.List(pl.Struct({"candidate": pl.String, "examples": pl.List(pl.String)})),
    "signature": pl.String,  # HMAC-SHA256 over the other columns, hexadecimal
}

VALIDATION_KEY = {
    "task_id": pl.String,
    "signature": pl.String,
    "kind": pl.String,  # rating | attention (the answer stands in the references) | repeat (of another task)
    "repeats": pl.String,  # the task whose content a repeat shows again; null for the others
    "method": pl.String,
    "seed": pl.Int64,
    "annotator_id": pl.String,  # who wrote the group or whom it imitates
    "item_ids": pl.List(pl.String),
    "candidate_annotators": pl.List(pl.Struct({"candidate": pl.String, "annotator_id": pl.String})),
}

RATINGS = {
    "task_id": pl.String,
    "rater_id": pl.String,
    "answer": pl.String,  # candidate letter, or "" for no answer
    "annotator_id": pl.String,  # annotator behind the answer; null without one
    "correct": pl.Boolean,  # null without an answer
    "kind": pl.String,  # rating | attention | repeat
    "repeats": pl.String,
    "method": pl.String,
    "seed": pl.Int64,
    "author_id": pl.String,  # who wrote the group or whom it imitates
    "item_ids": pl.List(pl.String),
    "comment": pl.String,
    "seconds": pl.Float64,  # the rater looked at the task; null where not recorded
    "presented": pl.Int64,  # 1-based place in the rater's own order; null where not recorded
}

RATERS = {
    "rater_id": pl.String,
    "n_answered": pl.Int64,  # rows with an answer, of any kind
    "n_attention": pl.Int64,  # attention checks answered
    "attention_passed": pl.Float64,  # share of them; null without any
    "n_repeats": pl.Int64,  # repeated tasks of which both showings were answered
    "self_consistency": pl.Float64,  # share of them answered with the same person; null without any
    "median_seconds": pl.Float64,  # per task; null where not recorded
    "attribution_accuracy": pl.Float64,  # over rated tasks of all methods; null without any
    "excluded": pl.Boolean,
    "reason": pl.String,  # which part of the rule failed, with its figures; null for those kept
}
