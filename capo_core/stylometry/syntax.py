"""Parts of speech of an explanation's tokens, by a tagger that ships its model as text and needs no download.

The tagger is the rule-based one of Brill (1992), *A simple rule-based part of speech tagger*, with the lexicon trained
on the Brown corpus and the Penn Treebank, as packaged in `textblob` (from `pattern`): Penn tags, English only. Brill
reports 95% of words right in edited text; in notes it will be fewer. Its errors are the same for everybody's text.
"""

from __future__ import annotations

from collections.abc import Sequence

PARTS_OF_SPEECH = {"noun": "NN", "verb": "VB", "adjective": "JJ", "adverb": "RB"}
"""What is counted, and how its Penn tags begin; modal verbs (MD) are not counted as verbs."""


def count_parts_of_speech(texts: Sequence[Sequence[str]]) -> list[dict[str, int]]:
    """Return how many tokens of each text are of each part of speech in `PARTS_OF_SPEECH`.

    Args:
        texts: tokens in the Penn Treebank's manner, as written: contractions split (does n't), punctuation apart.
    """
    from textblob.en import parser  # a second to import, and only features need it

    counts = []
    for tokens in texts:
        tags = [tag for _, tag in parser.find_tags(list(tokens))] if tokens else []
        counts.append({name: sum(t.startswith(prefix) for t in tags) for name, prefix in PARTS_OF_SPEECH.items()})
    return counts
