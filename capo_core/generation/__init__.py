"""Answers of a model to held-out items: what is asked, how tokens are drawn, many rows at a time."""
