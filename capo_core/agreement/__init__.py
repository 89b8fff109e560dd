"""How far annotators agree: Krippendorff's α, Cohen's κ, percent agreement, label entropy and divergence.

Plain functions on any polars frame with the columns item_id, annotator_id and label.
"""

from capo_core.agreement.alpha import krippendorff_alpha
from capo_core.agreement.pairs import cohen_kappa, percent_agreement
from capo_core.agreement.ratings import Level, count_multiple_label_slots
from capo_core.agreement.table import agreement_table
from capo_core.label_distributions import item_labels

__all__ = [
    "Level",
    "agreement_table",
    "cohen_kappa",
    "count_multiple_label_slots",
    "item_labels",
    "krippendorff_alpha",
    "percent_agreement",
]
