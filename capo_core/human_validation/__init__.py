"""Asking people the same question: a blinded rating set out, ratings back in."""
