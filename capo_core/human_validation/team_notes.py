"""What the team that runs the rating study has to know, and raters must not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from itertools import combinations
from string import Template

import polars as pl
from pydantic import JsonValue

from capo_core.human_validation.blinding import name_set
from capo_core.human_validation.power import PLANNED, detectable_difference, required_tasks
from capo_core.human_validation.rater_quality import describe_rule
from capo_core.human_validation.sheet import PLACEHOLDER
from capo_core.judging.groups import HUMAN
from schemas.human_validation import HumanValidationConfig

TEAM_FILE = "TEAM.md"
POWER, ALPHA = 0.8, 0.05

_DIFFERENCES = (0.05, 0.1, 0.15, 0.2, 0.3)
_MORE_RATERS = (3, 5, 10)


@dataclass(frozen=True)
class PowerPlan:
    """What a rating set can show.

    Attributes:
        n_tasks: groups of items that stand for both of two methods, the fewest of any two; people's own text counts
            as one of them only where fewer than two methods generated.
        n_raters: raters planned for.
        detectable_difference: difference of attribution rates that is found with 80% power; None if none is.
        required_tasks: by difference, the groups per method it would take; None where no number suffices.
    """

    n_tasks: int
    n_raters: int
    detectable_difference: float | None
    required_tasks: Mapping[float, int | None]

    def to_metadata(self) -> dict[str, JsonValue]:
        """Return the plan and what it assumes as plain values."""
        return {
            "n_tasks": self.n_tasks,
            "n_raters": self.n_raters,
            "power": POWER,
            "alpha": ALPHA,
            "detectable_difference": self.detectable_difference,
            "required_tasks": {f"{difference:g}": n for difference, n in self.required_tasks.items()},
            "assumed_variance": asdict(PLANNED),
        }


def plan_power(key: pl.DataFrame, config: HumanValidationConfig) -> PowerPlan:
    """Return what a rating set can show, with the variance of `power.PLANNED`.

    Args:
        key: VALIDATION_KEY.
        config: number of raters.
    """
    unit = pl.col("annotator_id") + "\x1f" + pl.col("item_ids").list.join("\x1f")
    rated = key.filter(pl.col("kind") == "rating").select("method", unit.alias("unit"))
    generated = rated.filter(pl.col("method") != HUMAN)
    compared = generated if generated["method"].n_unique() > 1 else rated
    units = [set(rows["unit"]) for rows in compared.partition_by("method")]
    n_tasks = min((len(a & b) for a, b in combinations(units, 2)), default=0)
    found = detectable_difference(n_tasks, config.n_raters, power=POWER, alpha=ALPHA) if n_tasks > 1 else None
    return PowerPlan(
        n_tasks=n_tasks,
        n_raters=config.n_raters,
        detectable_difference=None if found is None else round(found, 4),
        required_tasks={d: required_tasks(d, config.n_raters, power=POWER, alpha=ALPHA) for d in _DIFFERENCES},
    )


def write_team_notes(tasks: pl.DataFrame, key: pl.DataFrame, config: HumanValidationConfig, consent: str) -> str:
    """Return the notes for the team as Markdown: what was made, what it can show, what to hand out.

    Args:
        tasks: VALIDATION_TASKS.
        key: VALIDATION_KEY of the same set.
        config: what was asked for.
        consent: the consent text; the notes say so where it has unfilled placeholders.
    """
    plan = plan_power(key, config)
    n_unfilled = consent.count(PLACEHOLDER)
    text = files("capo_core.human_validation").joinpath("team.md").read_text(encoding="utf-8")
    return Template(text).substitute(
        set_id=name_set(tasks),
        composition=_describe_composition(key, config),
        rule=describe_rule(config),
        power_sentence=describe_power(plan.n_tasks, plan.n_raters, plan.detectable_difference),
        power_table=_tabulate_power(config.n_raters),
        variance=f"{PLANNED.item:g} between groups, {PLANNED.rater:g} between raters, {PLANNED.residual:g} otherwise",
        consent_sentence=(
            f"**The consent text has {n_unfilled} places to fill in** (marked `{PLACEHOLDER}: …]`): write it, name the "
            "file as `human_validation.consent_path` and export again before anybody rates."
            if n_unfilled
            else "The consent text is the team's own."
        ),
    )


def describe_power(n_tasks: int, n_raters: int, difference: float | None) -> str:
    """Return the plan as a sentence: n items and m raters detect a difference of d with 80% power."""
    who = f"{n_raters} rater{'s' if n_raters > 1 else ''}"
    if difference is None:
        return f"**{n_tasks} groups per method and {who} are too few to detect any difference with {POWER:.0%} power.**"
    return (
        f"**{n_tasks} groups per method and {who} detect a difference of {difference:.2f} in the share of right "
        f"attributions with {POWER:.0%} power.**"
    )


def _describe_composition(key: pl.DataFrame, config: HumanValidationConfig) -> str:
    kinds = dict(key["kind"].value_counts().iter_rows())
    by_method = key.filter(pl.col("kind") == "rating")["method"].value_counts().sort("method")
    methods = ", ".join(f"{method} {n}" for method, n in by_method.iter_rows())
    return (
        f"{key.height} tasks: {kinds.get('rating', 0)} to rate ({methods}; {config.n_tasks} were asked for), "
        f"{kinds.get('attention', 0)} attention checks, {kinds.get('repeat', 0)} repeats."
    )


def _tabulate_power(n_raters: int) -> str:
    """Return a Markdown table of the groups per method that differences take, by number of raters."""
    raters = sorted({n_raters, *_MORE_RATERS})
    lines = [
        "| difference in rates | " + " | ".join(f"{n} rater{'s' if n > 1 else ''}" for n in raters) + " |",
        "|---|" + "---:|" * len(raters),
    ]
    for difference in _DIFFERENCES:
        needed = [required_tasks(difference, n, power=POWER, alpha=ALPHA) for n in raters]
        lines.append(
            f"| {difference:.2f} | " + " | ".join("none suffice" if n is None else str(n) for n in needed) + " |"
        )
    return "\n".join(lines)
