"""Sequences that begin alike, computed once: prefix trees, the attention over them, and where they do not hold."""
