"""Layers of a model with an adapter that compute in fewer passes over memory, with the same values and gradients."""
