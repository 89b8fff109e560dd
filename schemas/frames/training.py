"""What adapters are trained on, and how training went."""

from __future__ import annotations

import polars as pl

MESSAGES = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
"""A conversation in the convention that TRL and chat templates read."""

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
