"""Corpora beyond memory, in parts: Parquet files, each of which holds all annotations of its items.

Duplicates, features and pairs concern one item each, so a part is a small corpus of its own and goes through the same
functions as any corpus. Only contexts and splits need to know of all parts, and they see items, not annotations. Every
function takes and returns paths and counts: processes of one machine map them over the parts (`run_bulk`), and so does
Ray Data on several (`ray.data.from_items(parts).map(…)`).
"""
