"""Composition only: what runs after what, and what fans out."""
