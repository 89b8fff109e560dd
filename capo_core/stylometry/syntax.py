"""Parts of speech of an explanation's tokens, by a tagger that ships its model as text and needs no download.

The tagger is the first stage of Brill (1992), *A simple rule-based part of speech tagger*, as packaged in `textblob`
(from `pattern`): each token's most frequent Penn tag in the Brown corpus and the Penn Treebank; for tokens not in that
lexicon NNP if they are capitalised, CD if they are numbers, else by their ending, NN where no ending is known. The
package does not apply Brill's contextual rules, so a token has the same tag wherever it stands, save that the first of
a text is also looked up in lower case. English only. Its errors are the same for everybody's text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from threading import Lock

PARTS_OF_SPEECH = {"noun": "NN", "verb": "VB", "adjective": "JJ", "adverb": "RB"}
"""What is counted, and how its Penn tags begin; modal verbs (MD) are not counted as verbs."""

_LOADING = Lock()
_BEFORE = "."
"""A token to stand before others, so that none of them opens the text."""


def count_parts_of_speech(tokens: Sequence[str], *, opening: bool) -> list[int]:
    """Return how many of the tokens are of each part of speech in `PARTS_OF_SPEECH`, in that order.

    Args:
        tokens: in the Penn Treebank's manner, as written: contractions split (does n't), punctuation apart.
        opening: whether the first of them opens the text, which lets its capital be overlooked.
    """
    find_tags = _load_tagger()
    tagged = find_tags(list(tokens)) if opening else find_tags([_BEFORE, *tokens])[1:]
    return [sum(tag.startswith(prefix) for _, tag in tagged) for prefix in PARTS_OF_SPEECH.values()]


@cache
def _load_tagger() -> Callable[[list[str]], list[list[str]]]:
    """Return what tags a list of tokens, its lexicon filled.

    The lexicon fills itself at first use and can be read while half full: one thread fills it, the others wait.
    """
    with _LOADING:
        from textblob.en import parser  # a second to import, and only features need it

        parser.find_tags([_BEFORE])
    return parser.find_tags
