"""Whom a corpus names how, and who is not in it any more."""

from __future__ import annotations

from typing import Literal

from schemas.section import Section, Slug

Scope = Literal["analysis", "modelling", "release"]
"""What a person may consent to."""


class NamingRule(Section):
    """How ids of annotators are read: what a step takes of a key that no step is given.

    Attributes:
        corpus: its name; in another corpus the same person has another pseudonym.
        annotator_ids: whether ids become pseudonyms or are kept.
        key_id: names the key of the pseudonyms without giving it away.
        erased: pseudonyms of erased people, sorted.
        known: pseudonyms of the people whom a later file may name beside those who speak in it.
    """

    corpus: Slug
    annotator_ids: Literal["pseudonymise", "keep"]
    key_id: str
    erased: tuple[str, ...] = ()
    known: tuple[str, ...] = ()


class Erasure(Section):
    """An entry of the list of erased people: a pseudonym and nothing else of the person.

    Attributes:
        corpus: name of the corpus.
        pseudonym: of the person.
        key_id: of the key that it was made with.
        erased_at: when, ISO 8601.
    """

    corpus: Slug
    pseudonym: str
    key_id: str
    erased_at: str
