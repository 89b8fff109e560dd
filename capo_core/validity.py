"""Whether an explanation makes sense, by the second round of VariErr: annotators judged each other's explanations."""

from __future__ import annotations

import json

import polars as pl

from capo_core.errors import ConfigError


def measure_validity(metadata: pl.Series, setting: str, instead: str) -> pl.DataFrame:
    """Return the share of each explanation's judgements, the author's own included, that say it makes sense.

    Args:
        metadata: JSON objects; VariErr's hold `judgments`, a list of objects with `makes_sense`.
        setting: what asks for judgements, for the error.
        instead: what to set it to without any, for the error.

    Returns:
        `metadata`, distinct and sorted, and `validity`, null where nobody judged.

    Raises:
        ConfigError: if nothing was judged.
    """
    distinct = metadata.unique().sort().alias("metadata")
    shares = [_share_of_sense(text) for text in distinct]
    if all(share is None for share in shares):
        raise ConfigError(
            f"{setting}, but no explanation of this corpus carries second-round judgements "
            f"(metadata key 'judgments', as in VariErr's own file); set it to {instead}"
        )
    return pl.DataFrame([distinct, pl.Series("validity", shares, dtype=pl.Float64)])


def _share_of_sense(metadata: str) -> float | None:
    """Return the share of an explanation's judgements that say it makes sense, None where there are none."""
    content = json.loads(metadata)
    judgements = content.get("judgments") if isinstance(content, dict) else None
    verdicts = [one.get("makes_sense") for one in judgements or () if isinstance(one, dict)]
    given = [verdict for verdict in verdicts if isinstance(verdict, bool)]
    return sum(given) / len(given) if given else None
