"""Generations held against the people they imitate: decisions, similarity, group imitation, and how sure it is."""
