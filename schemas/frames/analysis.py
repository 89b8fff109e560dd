"""What the people's own annotations show: agreement, convergence, stability, style."""

from __future__ import annotations

import polars as pl

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

DRIFT = {
    "annotator_id": pl.String,
    "feature": pl.String,  # a style feature | any_feature | label_distribution
    "is_item_controlled": pl.Boolean,  # whether differences to others of the same items were compared
    "mean_before": pl.Float64,  # null for any_feature and label_distribution
    "mean_after": pl.Float64,
    "difference": pl.Float64,  # in standard deviations; any_feature: the largest over its deviation; labels: JSD, bits
    "p_value": pl.Float64,
    "p_holm": pl.Float64,  # over an annotator's features; null for any_feature and label_distribution
    "n_before": pl.Int64,  # items
    "n_after": pl.Int64,
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
