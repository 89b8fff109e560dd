"""Registered adapters behind an OpenAI-compatible endpoint: every annotator is a model name."""
