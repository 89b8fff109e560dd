"""The parts of the line, as plain functions that submit steps and keep their artifacts.

Each function takes the run's `Line`, which knows the configuration and what earlier parts have submitted. Nothing here
computes: loops go over annotators, methods and seeds, and every call submits a cached step.
"""
