"""How far metadata of annotators that are about to be published narrow each of them down.

k-anonymity (Sweeney 2002, International Journal of Uncertainty, Fuzziness and Knowledge-Based Systems 10(5)): a table
is k-anonymous over its quasi-identifiers if every combination of values that stands in it is shared by k people at
least. It is said of every combination of columns, because whoever looks for somebody may know any of them. It says
nothing of groups that agree in what is to be protected (Machanavajjhala et al. 2007), and nothing of what explanations
give away by themselves: that is measured in `risk`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import polars as pl

from capo_core.errors import ReleaseError
from schemas.release import ReleaseConfig

MIN_K = 5
"""Below this nothing is released, whatever the reason."""
MIN_K_PUBLIC = 11
"""Below this nothing is released to everybody without a reason."""

_MAX_COLUMNS = 12
_ANNOTATOR, _CONSENT = "annotator", "consent"

K_ANONYMITY: dict[str, pl.DataType | type[pl.DataType]] = {
    "columns": pl.String,  # names, with commas between them
    "n_columns": pl.Int64,
    "n_combinations": pl.Int64,  # of values that occur
    "k": pl.Int64,  # people who share the rarest
    "n_below": pl.Int64,  # people in combinations of fewer than MIN_K
}


@dataclass(frozen=True)
class PrivacyCheck:
    """What metadata of annotators do to those who are in a release.

    Attributes:
        released: `K_ANONYMITY` of the columns that are published; no rows where none are.
        withheld: likewise of single columns known of annotators and not published.
        n_annotators: who are in the release.
    """

    released: pl.DataFrame
    withheld: pl.DataFrame
    n_annotators: int

    @property
    def k(self) -> int | None:
        """People who share the rarest combination of all; None where nothing is published."""
        return None if self.released.is_empty() else int(self.released["k"].to_numpy().min())

    def find_obstacle(self, release: ReleaseConfig, forced: str | None) -> str | None:
        """Return why it may not be released, None if it may.

        Args:
            release: to whom.
            forced: a reason to go on where one is enough.
        """
        if self.k is None or self.k >= MIN_K_PUBLIC:
            return None
        worst = self.released.filter(pl.col("k") == self.k).sort("n_columns", "columns").row(0, named=True)
        found = f"k = {self.k}: {_people(self.k)} in the release share a combination of {worst['columns']}"
        if self.k < MIN_K:
            return (
                f"{found}; below {MIN_K} nothing is released, not by force either. Take columns out of "
                "release.annotator_columns, or make their values coarser in the data"
            )
        if release.audience == "public" and forced is None:
            return (
                f"{found}; below {MIN_K_PUBLIC} nothing is released to the public. Take columns out of "
                "release.annotator_columns, make their values coarser, release to few (release.audience: restricted), "
                "or give a reason with --force, which goes into the card"
            )
        return None


def check_privacy(corpus: pl.DataFrame, released: Sequence[str]) -> PrivacyCheck:
    """Return k of every combination of the columns that are published of annotators, and of single ones that are not.

    Args:
        corpus: annotator_id, metadata; those whose words are released.
        released: columns of annotators' metadata that are published.

    Raises:
        ReleaseError: as `tabulate_annotators`; if there are more columns than combinations can be looked through.
    """
    if len(released) > _MAX_COLUMNS:
        raise ReleaseError(f"release.annotator_columns names {len(released)} columns; at most {_MAX_COLUMNS} can be")
    table = tabulate_annotators(corpus, released)
    sets = [chosen for size in range(1, len(released) + 1) for chosen in combinations(released, size)]
    known = tabulate_annotators(corpus, [name for name in find_columns(corpus) if name not in released])
    return PrivacyCheck(
        pl.DataFrame([_count(table, chosen) for chosen in sets], schema=K_ANONYMITY),
        pl.DataFrame([_count(known, (name,)) for name in known.columns[1:]], schema=K_ANONYMITY),
        table.height,
    )


def tabulate_annotators(corpus: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Return annotator_id and columns of what is known of each annotator, as text, sorted by annotator_id.

    Args:
        corpus: annotator_id, metadata.
        columns: of the annotator's own metadata, or of the rows', where all rows of an annotator agree.

    Raises:
        ReleaseError: if a column is of nobody, or an annotator's rows differ in it; names it.
    """
    facts = _collect(corpus)
    rows = []
    for annotator, known in sorted(facts.items()):
        row: dict[str, str | None] = {"annotator_id": annotator}
        for name in columns:
            values = known.get(name, set())
            if len(values) > 1:
                raise ReleaseError(
                    f"release.annotator_columns: {name!r} has {len(values)} values in the rows of {annotator}; only "
                    "what is the same in all rows of an annotator can be published of the annotator"
                )
            row[name] = next(iter(values), None)
        rows.append(row)
    for name in columns:
        if all(row[name] is None for row in rows):
            there = ", ".join(find_columns(corpus)) or "none"
            raise ReleaseError(f"release.annotator_columns: nothing is known as {name!r}; columns are {there}")
    return pl.DataFrame(rows, schema=dict.fromkeys(["annotator_id", *columns], pl.String))


def find_columns(corpus: pl.DataFrame) -> list[str]:
    """Return the columns known of annotators, sorted: in all rows of each the same, and something for some.

    Args:
        corpus: annotator_id, metadata.
    """
    facts = list(_collect(corpus).values())
    names = {name for known in facts for name in known}
    return sorted(name for name in names if all(len(known.get(name, ())) < 2 for known in facts))


def _collect(corpus: pl.DataFrame) -> dict[str, dict[str, set[str]]]:
    """Return the values of each column by annotator; consent is what the release rests on, not what it says."""
    found: dict[str, dict[str, set[str]]] = {}
    for annotator, text in corpus.select("annotator_id", "metadata").unique().iter_rows():
        known = found.setdefault(annotator, {})
        metadata = json.loads(text)
        own = metadata.pop(_ANNOTATOR, None)
        for name, value in _scalars([metadata, own]):
            known.setdefault(name, set()).add(value)
    return found


def _scalars(parts: Iterable[Any]) -> Iterable[tuple[str, str]]:
    for part in parts:
        for name, value in part.items() if isinstance(part, Mapping) else ():
            if value is not None and not isinstance(value, Mapping | list) and str(value).strip() and name != _CONSENT:
                yield name, str(value).strip()


def _count(table: pl.DataFrame, columns: Sequence[str]) -> dict[str, Any]:
    """Return a row of K_ANONYMITY; who has no value shares that with all others who have none."""
    sizes = table.group_by(columns).len()["len"].to_list()
    return {
        "columns": ", ".join(columns),
        "n_columns": len(columns),
        "n_combinations": len(sizes),
        "k": min(sizes),
        "n_below": sum(size for size in sizes if size < MIN_K),
    }


def describe_k_anonymity(check: PrivacyCheck) -> str:
    """Return what the figures mean, as a paragraph."""
    if check.k is None:
        return (
            "No metadata of the annotators are published, so none narrow anybody down; what they explain does, as "
            "stated below."
        )
    n_below = int(check.released["n_below"].to_numpy().max())
    below = f" {_people(n_below)} are in combinations of fewer than {MIN_K}." if n_below else ""
    return (
        f"Of {_people(check.n_annotators)}, every combination of the published metadata is shared by k = {check.k} at "
        f"least (k-anonymity, Sweeney 2002).{below} It does not protect against recognising how somebody writes."
    )


def _people(n: int) -> str:
    return f"{n} annotator" + ("s" if n != 1 else "")
