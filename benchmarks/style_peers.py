"""Rates of other libraries that measure style, each by itself: `python -m benchmarks.style_peers NAME FILE`.

Run by `benchmarks.style_features` in an interpreter of the peers' own, since textdescriptives wants an older numpy than
capo. FILE holds a JSON list of texts; the seconds, of the wall and of the processor, are printed as JSON. Nothing here
may import capo.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

_TEXTSTAT = (
    *("char_count", "letter_count", "lexicon_count", "sentence_count", "words_per_sentence", "avg_character_per_word"),
    *("automated_readability_index", "coleman_liau_index", "lix", "rix"),
)
"""What textstat measures without the pronouncing dictionary, which it would download."""


_LEXICALRICHNESS = ("ttr", "rttr", "cttr", "Herdan", "Summer", "Maas", "yulek", "yulei", "simpsond")
"""What lexicalrichness derives from the counts of words."""


def make_textdescriptives() -> Callable[[list[str]], object]:
    """Return what measures descriptive statistics and readability on a blank English pipeline."""
    import spacy  # pyright: ignore[reportMissingImports]
    import textdescriptives  # pyright: ignore[reportMissingImports]

    pipeline = spacy.blank("en")
    for component in ("sentencizer", "textdescriptives/descriptive_stats", "textdescriptives/readability"):
        pipeline.add_pipe(component)
    return lambda texts: textdescriptives.extract_df(pipeline.pipe(texts))


def make_textstat() -> Callable[[list[str]], object]:
    """Return what measures counts and readability formulas of textstat."""
    import textstat

    measures = [getattr(textstat, name) for name in _TEXTSTAT]
    return lambda texts: [[measure(text) for measure in measures] for text in texts]


def make_lexicalrichness() -> Callable[[list[str]], object]:
    """Return what measures words, terms and nine figures of lexical richness, where defined."""
    import lexicalrichness  # pyright: ignore[reportMissingImports]

    def measure(text: str) -> list[float]:
        lex = lexicalrichness.LexicalRichness(text)
        return [lex.words, lex.terms, *(getattr(lex, name) for name in _LEXICALRICHNESS if lex.terms > 1)]

    return lambda texts: [measure(text) for text in texts]


PEERS = {
    "textdescriptives": make_textdescriptives,
    "lexicalrichness": make_lexicalrichness,
    "textstat": make_textstat,
}


def main(name: str, file: str) -> None:
    """Print name, version, features and seconds of one peer on the texts of a file, after a first small call."""
    texts = json.loads(Path(file).read_text(encoding="utf-8"))
    measure = PEERS[name]()
    measure(texts[:20])
    wall, cpu = time.perf_counter(), time.process_time()
    measure(texts)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    version = importlib.metadata.version(name)
    print(json.dumps({"name": name, "version": version, "wall_seconds": wall, "cpu_seconds": cpu, "rows": len(texts)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
