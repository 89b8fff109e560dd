"""Who is who, taken out of raw rows before anything is checked, stored or said of them.

Where the rows say who annotated (the annotator, judges of other people's explanations, lists of annotators), the id
becomes a pseudonym. In everything else beside the texts and the explanation (other columns, the row as quarantine
keeps it, the item's own id) every id that is unmistakable is replaced where it stands as a word; shorter ones, which
may be ages or grades as well, are replaced only where an annotator is meant. The words of the texts and explanations
stay as written; explanations that name an annotator are counted.

A row of which it cannot be said whose it is (a broken line) is not kept word for word: nobody knows where in it a
name stands, or whether it is an erased person's.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from capo_core.pseudonyms import is_pseudonym, name_pseudonym
from capo_core.quality import Candidate, as_text, to_json

NAMING_EXPLANATIONS = "explanations_naming_an_annotator"
ERASED_ROWS = "rows_erased"

_ONE_ANNOTATOR = ("annotator", "annotator_id")
_SEVERAL_ANNOTATORS = ("annotators", "annotator_ids", "idk")
_BY_ANNOTATOR = ("annotations",)
"""Keys of the formats' records under which annotators are named, and under which keys are annotators."""

_MIN_LETTERS, _MIN_DIGITS = 3, 5
"""An id of fewer characters may stand for anything, e.g. `7` or `A`."""
_ERASED = "[erased]"
_MAX_WORDS = 4
_WORD = re.compile(r"[^\s,;:|/()\"'<>\[\]]*[^\s,;:|/()\"'<>\[\].!?]")
"""What stands between white space or marks, without a full stop at its end."""
_GONE = object()


@dataclass(frozen=True)
class Naming:
    """What annotators are called from now on, and who is not let in.

    Attributes:
        corpus: its name; in another corpus the same person has another pseudonym.
        key: of the pseudonyms.
        keeps_ids: whether ids stay as they are, because they are pseudonyms already.
        erased: pseudonyms of the people whose rows are dropped.
        known: pseudonyms of people of the corpus who may be named in rows of others.
    """

    corpus: str
    key: bytes
    keeps_ids: bool = False
    erased: frozenset[str] = frozenset()
    known: frozenset[str] = frozenset()

    def pseudonym(self, annotator: str) -> str:
        """Return an annotator's pseudonym; an id of that form is one already, as in tables that capo has written."""
        return annotator if is_pseudonym(annotator) else name_pseudonym(annotator, self.corpus, self.key)

    def name(self, annotator: str) -> str:
        """Return what an annotator is called from now on."""
        return annotator if self.keeps_ids else self.pseudonym(annotator)

    def is_erased(self, annotator: str) -> bool:
        """Return whether an annotator was erased."""
        return bool(self.erased) and self.pseudonym(annotator) in self.erased


def protect_identities(
    groups: Sequence[Sequence[Candidate]], naming: Naming, spell: Callable[[object], object]
) -> tuple[list[list[Candidate]], Counter[str]]:
    """Return the rows under the names that annotators have from now on, without those of erased people.

    Args:
        groups: rows as a reader found them, of several kinds; who is named in one kind is known in all.
        naming: who is called what.
        spell: returns an annotator as the format's reader spells the id, e.g. `Ann1` for VariErr's 0.

    Returns:
        The groups, and counts: rows_erased where anybody was erased, and explanations_naming_an_annotator where ids are
        replaced.

    Raises:
        ValueError: if two annotators get the same pseudonym.
    """
    known = {name for group in groups for one in group if (name := _name_of(one.annotator_id))}
    rewriter = _Rewriter(naming, spell, known)
    kept = [[one for one in group if not naming.is_erased(_name_of(one.annotator_id) or "")] for group in groups]
    counts: Counter[str] = Counter()
    if naming.erased:
        counts[ERASED_ROWS] = sum(map(len, groups)) - sum(map(len, kept))
    if not naming.keeps_ids:
        texts = (one.explanation for group in kept for one in group if isinstance(one.explanation, str))
        counts[NAMING_EXPLANATIONS] = sum(rewriter.names_somebody(text) for text in texts)
    return [[rewriter.protect(candidate) for candidate in group] for group in kept], counts


def forget_mentions(texts: Iterable[str], annotator: str, naming: Naming) -> list[str]:
    """Return JSON texts of rows without mentions of an erased person.

    Args:
        texts: metadata or records, as stored.
        annotator: the person, as named there.
        naming: by which that name is erased.
    """
    rewriter = _Rewriter(naming, lambda one: one, {annotator})
    return [to_json(rewriter.rewrite(json.loads(text))) for text in texts]


def list_annotators(candidates: Iterable[Candidate]) -> dict[str, int]:
    """Return the number of rows of each annotator as the rows call them, sorted."""
    counts = Counter(name for candidate in candidates if (name := _name_of(candidate.annotator_id)))
    return dict(sorted(counts.items()))


def _name_of(annotator: object) -> str | None:
    """Return an annotator's id as text, as `check_candidates` reads it; None where it is missing or no text."""
    text = as_text(annotator, number_allowed=True)
    return text.strip() or None if text else None


def _is_unmistakable(name: str) -> bool:
    return len(name) >= (_MIN_DIGITS if name.isdigit() else _MIN_LETTERS)


class _Rewriter:
    """Replaces ids within rows."""

    def __init__(self, naming: Naming, spell: Callable[[object], object], known: set[str]) -> None:
        self._naming = naming
        self._spell = spell
        self._known = known
        names = {name: naming.name(name) for name in known}
        raw = [name for name in known if not is_pseudonym(name)]
        if len({names[name] for name in raw}) < len(raw):
            raise ValueError(f"two annotators of {naming.corpus} got the same pseudonym: use another key")
        # Ids that stay are looked for only where their person must not be named any more.
        sought = [name for name in known if not naming.keeps_ids or naming.is_erased(name)]
        self._words = {
            name.casefold(): _ERASED if naming.is_erased(name) else names[name]
            for name in sought
            if _is_unmistakable(name)
        }
        longest_first = sorted(map(re.escape, self._words), key=len, reverse=True)
        pattern = rf"(?<![^\W_])(?:{'|'.join(longest_first)})(?![^\W_])"
        self._pattern = re.compile(pattern, re.IGNORECASE) if longest_first else None
        self._replaced: dict[str, str] = {}

    def names_somebody(self, text: str) -> bool:
        return self._pattern is not None and self._pattern.search(text) is not None

    def protect(self, candidate: Candidate) -> Candidate:
        """Return one row under the names that annotators have from now on."""
        whose = _name_of(candidate.annotator_id)
        record = candidate.record
        is_told = candidate.problem is None and as_text(candidate.annotator_id, number_allowed=True) is not None
        if whose is None and (self._naming.erased or not (is_told or self._naming.keeps_ids)):
            record = {"withheld": f"it cannot be told whose it is; see {candidate.source_file} itself"}
        problem = candidate.problem
        if problem is not None:
            problem = replace(problem, field=self._replace(problem.field), detail=self._replace(problem.detail))
        metadata = self.rewrite(candidate.metadata)
        return replace(
            candidate,
            annotator_id=self._rename(candidate.annotator_id),
            source_id=self.rewrite(candidate.source_id),
            metadata=metadata if isinstance(metadata, Mapping) else {},
            record=self.rewrite(record),
            problem=problem,
        )

    def _rename(self, annotator: object) -> Any:
        """Return an id under its new name; what is no id at all stays missing, or is renamed part by part."""
        name = _name_of(annotator)
        if name is not None:
            return self._naming.name(name)
        if isinstance(annotator, Mapping):
            return {self._naming.name(str(key)): self._rename(value) for key, value in annotator.items()}
        if isinstance(annotator, list | tuple):
            return [self._rename(one) for one in annotator]
        return annotator

    def rewrite(self, value: object, key: str | None = None) -> Any:
        """Return a value from a row with ids replaced; `_GONE` where it names an erased person and nothing else."""
        if isinstance(value, Mapping):
            return self._rewrite_mapping(value, key)
        if isinstance(value, list | tuple):
            parts = [self.rewrite(one, key) for one in value]
            return [part for part in parts if part is not _GONE]
        if key in _ONE_ANNOTATOR or (key in _SEVERAL_ANNOTATORS and (isinstance(value, str) or self._is_known(value))):
            return self._rewrite_names(value, several=key in _SEVERAL_ANNOTATORS)
        if isinstance(value, str):
            return self._replace(value)
        if isinstance(value, int) and not isinstance(value, bool):
            text = str(value)
            return value if (found := self._replace(text)) == text else found
        return value

    def _rewrite_mapping(self, value: Mapping[Any, Any], key: str | None) -> Any:
        author = next((value[name] for name in _ONE_ANNOTATOR if name in value), None)
        spelled = _name_of(self._spell(author))
        if key is not None and spelled is not None and self._naming.is_erased(spelled):
            return _GONE  # what an erased person said of somebody else's explanation
        rewritten = {}
        for name, inner in value.items():
            if key in _BY_ANNOTATOR:
                if self._naming.is_erased(str(name).strip()):
                    continue
                new_name = self._naming.name(str(name).strip())
            else:
                new_name = self._replace(str(name))
            found = self.rewrite(inner, new_name if key not in _BY_ANNOTATOR else None)
            if found is not _GONE:
                rewritten[new_name] = found
        return rewritten

    def _rewrite_names(self, value: object, *, several: bool) -> Any:
        """Return one id, or several in a text with commas between them, without erased people."""
        if several and isinstance(value, str) and "," in value:
            names = [part.strip() for part in value.split(",")]
            return ",".join(self._naming.name(name) for name in names if name and not self._naming.is_erased(name))
        name = _name_of(self._spell(value))
        if name is None:
            return value
        return _GONE if self._naming.is_erased(name) else self._naming.name(name)

    def _is_known(self, value: object) -> bool:
        return _name_of(self._spell(value)) in self._known

    def _replace(self, text: str) -> str:
        """Return a text with every unmistakable id in it replaced."""
        if text not in self._replaced:
            found = text
            if self._pattern is not None:
                found = self._pattern.sub(lambda match: self._words[match.group().casefold()], text)
            self._replaced[text] = self._replace_absent(found)
        return self._replaced[text]

    def _replace_absent(self, text: str) -> str:
        """Return a text without ids of people who do not speak in these rows; they are found by their pseudonyms.

        Nobody's id is kept to be looked for, so every run of up to `_MAX_WORDS` words is named and looked up.
        """
        sought = self._naming.erased if self._naming.keeps_ids else self._naming.erased | self._naming.known
        if not sought:
            return text
        words, parts, place = list(_WORD.finditer(text)), [], 0
        number = 0
        while number < len(words):
            for last in range(min(number + _MAX_WORDS, len(words)), number, -1):
                start, end = words[number].start(), words[last - 1].end()
                pseudonym = self._naming.pseudonym(text[start:end])
                if pseudonym in sought and _is_unmistakable(text[start:end]):
                    parts += [text[place:start], _ERASED if pseudonym in self._naming.erased else pseudonym]
                    place, number = end, last - 1
                    break
            number += 1
        return "".join([*parts, text[place:]])
