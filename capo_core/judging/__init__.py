"""Asking a language model which person a group of explanations reads like."""
