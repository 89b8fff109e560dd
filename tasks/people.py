"""Annotators as people: which key their pseudonyms come from, who was erased, who is meant by a name.

The list of erased people, `erasures/<corpus>/<pseudonym>.json`, lies in capo's home or, where artifacts are shared,
beside them. It holds pseudonyms only: who reads a raw file with the key knows whose rows to leave out, nobody else
learns who was in it.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from pydantic import ValidationError

from capo_core.corpora.identities import Naming
from capo_core.durable_files import write_file_atomically
from capo_core.errors import CorpusError
from schemas.config import CorpusConfig
from schemas.people import Erasure, NamingRule
from tasks.sources import annotator_secret, secret_id
from tasks.storage.home import artifacts_url, capo_home
from tasks.storage.object_folder import reach

_FOLDER = "erasures"


def find_naming_rule(corpus: CorpusConfig) -> NamingRule | None:
    """Return how ids of a corpus are read from now on; None where they are kept and nobody was erased.

    Raises:
        CorpusError: if somebody was erased with another key than this machine's: the person could not be recognised.
    """
    erasures = read_erasures(corpus.name)
    if corpus.annotator_ids == "keep" and not erasures:
        return None
    key_id = secret_id(annotator_secret())
    foreign = [entry for entry in erasures if entry.key_id != key_id]
    if foreign:
        raise CorpusError(
            f"corpus {corpus.name}: {len(foreign)} people were erased with key {foreign[0].key_id}, this machine has "
            f"{key_id} and would let them in again; put keys/annotators.key (or CAPO_ANNOTATORS_KEY) of that machine "
            "in place"
        )
    erased = tuple(sorted(entry.pseudonym for entry in erasures))
    return NamingRule(corpus=corpus.name, annotator_ids=corpus.annotator_ids, key_id=key_id, erased=erased)


def open_naming(rule: NamingRule | None) -> Naming | None:
    """Return a rule with its key.

    Raises:
        CorpusError: if this machine has another key.
    """
    if rule is None:
        return None
    key = annotator_secret()
    if secret_id(key) != rule.key_id:
        raise CorpusError(
            f"the key of annotators' pseudonyms here is {secret_id(key)}, this run's is {rule.key_id}; machines that "
            "work on one corpus need the same keys/annotators.key (or CAPO_ANNOTATORS_KEY)"
        )
    keeps_ids = rule.annotator_ids == "keep"
    return Naming(rule.corpus, key, keeps_ids, frozenset(rule.erased), frozenset(rule.known))


def read_erasures(corpus: str) -> list[Erasure]:
    """Return the list of people erased from a corpus, by pseudonym.

    Raises:
        CorpusError: if an entry is not one; names it.
    """
    url = artifacts_url()
    if url is None:
        found = {str(path): path.read_bytes() for path in sorted((capo_home() / _FOLDER / corpus).glob("[!.]*.json"))}
    else:
        objects = reach(url)
        contents = objects.read_many(list(objects.sizes(f"{_FOLDER}/{corpus}")))
        found = {objects.place(name): content for name, content in sorted(contents.items())}
    entries = []
    for place, content in found.items():
        try:
            entries.append(Erasure.model_validate_json(content))
        except ValidationError as error:
            # Without the entry, the person would be let in again.
            raise CorpusError(f"{place}: is no entry of erased people: {error}; restore it from a backup") from error
    return entries


def record_erasure(corpus: str, pseudonym: str) -> None:
    """Put a person on the list of erased people of a corpus."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entry = Erasure(corpus=corpus, pseudonym=pseudonym, key_id=secret_id(annotator_secret()), erased_at=now)
    name, content = f"{_FOLDER}/{corpus}/{pseudonym}.json", entry.model_dump_json(indent=1).encode("utf-8")
    url = artifacts_url()
    if url is None:
        write_file_atomically(capo_home() / name, content)
    else:
        reach(url).write(name, content)


def resolve_annotator(corpus: str, said: str, known: Collection[str]) -> str:
    """Return the annotator whom somebody at this machine means: a known name, or the pseudonym of a raw id.

    Args:
        corpus: name of the corpus.
        said: what was typed; stored nowhere.
        known: names that annotators have in what is stored.

    Returns:
        One of `known`; `said` itself where neither it nor its pseudonym is known.
    """
    if said in known:
        return said
    pseudonym = Naming(corpus, annotator_secret()).pseudonym(said)
    return pseudonym if pseudonym in known else said
