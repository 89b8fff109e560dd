"""Pseudonyms: stable under one key, unlinkable under others."""

from __future__ import annotations

import hashlib
import hmac

from capo_core.pseudonyms import is_pseudonym, name_pseudonyms

KEY = bytes(range(32))


def test_a_pseudonym_is_the_keyed_digest_of_corpus_and_id() -> None:
    digest = hmac.new(KEY, b'["varierr", "Ann1"]', hashlib.sha256).hexdigest()
    assert name_pseudonyms(["Ann1"], "varierr", KEY) == {"Ann1": f"annotator-{digest[:10]}"}


def test_the_same_key_names_alike_and_another_key_or_corpus_otherwise() -> None:
    first = name_pseudonyms(["ada", "ben"], "one", KEY)
    assert name_pseudonyms(["ben", "ada"], "one", KEY) == first
    others = [name_pseudonyms(["ada", "ben"], "two", KEY), name_pseudonyms(["ada", "ben"], "one", KEY[::-1])]
    assert len({*first.values(), *(name for other in others for name in other.values())}) == 6


def test_only_the_exact_form_is_a_pseudonym() -> None:
    name = name_pseudonyms(["ada"], "c", KEY)["ada"]
    assert is_pseudonym(name)
    assert not any(is_pseudonym(text) for text in ("ada", name[:-1], name + "0", name.upper(), f" {name}"))
