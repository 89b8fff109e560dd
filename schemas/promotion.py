"""When a challenger takes the champion's place."""

from __future__ import annotations

from pydantic import Field

from schemas.section import Fraction, Section


class PromotionConfig(Section):
    """What a newly registered adapter must show before it answers by default. All of it is held-out text."""

    group_size: int = Field(
        default=5,
        ge=1,
        description="group imitation is attribution accuracy of groups of this size, surface-normalised, by letters; "
        "the largest evaluated size up to it",
    )
    min_items: int = Field(
        default=20,
        ge=1,
        description="held-out items; on fewer, intervals and tests promise nothing, and no one is moved",
    )
    alpha: Fraction = Field(default=0.05, description="of the paired test against the champion")
    max_agreement_loss: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="label agreement may be lower than the champion's by so much at most, with all of its interval",
    )
    max_perplexity_ratio: float = Field(
        default=2.0, ge=1, description="perplexity of neutral text, as a multiple of the base model's"
    )
    max_copying: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="share of near-duplicates of training explanations beyond the person's own in held-out text",
    )
