"""Versions of the libraries that decide what a model computes."""

from __future__ import annotations

from importlib.metadata import version

MODEL_LIBRARIES = ("torch", "transformers", "trl", "peft")


def library_versions() -> dict[str, str]:
    """Return the installed version of each library that training and generation depend on; imports none of them."""
    return {name: version(name) for name in MODEL_LIBRARIES}
