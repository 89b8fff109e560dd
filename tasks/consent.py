"""Corpora without the people who do not consent to a use."""

from __future__ import annotations

from capo_core.consent import find_objections, read_consent
from capo_core.errors import CorpusError
from schemas.artifacts import ArtifactRef
from schemas.people import Scope
from tasks.ingest import describe_corpus
from tasks.step import Step, step
from tasks.storage.artifact_store import ArtifactStore


def find_refusing(corpus: ArtifactRef, use: Scope, *, require_consent: bool) -> dict[str, str]:
    """Return who in a corpus is left out of a use, and why.

    Raises:
        CorpusError: if a stated scope is none.
    """
    return find_objections(read_consent(ArtifactStore().read_table(corpus)), use, require_consent=require_consent)


@step("leave-out", version=1)
def leave_out(step: Step, corpus: ArtifactRef, left_out: list[str], use: str) -> ArtifactRef:
    """Return a corpus without some of its annotators.

    Args:
        step: set by the decorator.
        corpus: with them.
        left_out: whom.
        use: what of, for messages.

    Raises:
        CorpusError: if nobody would be left to compare, or a split would be empty.
    """
    frame = step.read(corpus)
    kept = frame.filter(~frame["annotator_id"].is_in(left_out))
    n_people, empty = kept["annotator_id"].n_unique(), sorted(set(frame["split"]) - set(kept["split"]))
    if n_people < 2 or empty:
        lacks = f"no annotation in {' and '.join(empty)}" if empty else f"{n_people} annotator(s), of 2 needed"
        raise CorpusError(
            f"{use}: without the {len(left_out)} who do not consent to it there is {lacks}. Look up their scopes in "
            "the column consent, or do without this use"
        )
    step.logger.warning(
        "%s: %d annotators and their %d annotations are left out, for want of consent",
        use, len(left_out), frame.height - kept.height,
    )  # fmt: skip
    before = step.store.metadata(corpus)
    about = describe_corpus(kept)
    present = {name: n for name, n in before["changed_in"].items() if name in about["annotators"]}
    metadata = {**about, "version": before["version"], "changed_in": present}
    return step.write("corpus", {"data.parquet": kept}, metadata=metadata)
