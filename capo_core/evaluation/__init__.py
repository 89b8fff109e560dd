"""Generations held against the people they imitate: decisions, similarity, group imitation, and how sure it is."""

from capo_core.evaluation.evaluate import Evaluation, evaluate_generations

__all__ = ["Evaluation", "evaluate_generations"]
