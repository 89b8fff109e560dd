"""What is made for publication: the corpus under pseudonyms."""

from __future__ import annotations

from capo_core.pseudonyms import name_pseudonyms
from capo_core.release.renaming import rename_annotators
from schemas.artifacts import ArtifactRef
from tasks.sources import release_secret, secret_id
from tasks.step import Step, step


@step("pseudonymise", version=1)
def pseudonymise_corpus(step: Step, corpus: ArtifactRef, corpus_name: str, named_by: str) -> ArtifactRef:
    """Return the corpus with its annotators under the pseudonyms that this home's key gives them.

    Args:
        step: of the line.
        corpus: with the annotators' own ids.
        corpus_name: of the corpus; pseudonyms differ from corpus to corpus.
        named_by: `secret_id` of the key.
    """
    secret = release_secret()
    if secret_id(secret) != named_by:
        raise ValueError(f"the release key in this home is not {named_by}; run the whole flow on one machine")
    metadata = step.store.metadata(corpus)
    pseudonyms = name_pseudonyms(metadata["annotators"], corpus_name, secret)
    renamed = rename_annotators(step.read(corpus), pseudonyms)
    about = {
        "annotators": sorted(pseudonyms.values()),
        "n_train": {pseudonyms[name]: n for name, n in metadata["n_train"].items()},
        "version": 1,
        "changed_in": dict.fromkeys(pseudonyms.values(), 1),
    }
    return step.write("corpus", {"data.parquet": renamed}, metadata={**metadata, **about})
