"""Intervals, tests and corrections: pure statistics on arrays, no notion of a method or a metric."""
