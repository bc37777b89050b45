"""Two small perturbations that spoil fine-tuning and zero-shot customisation: mathematics only."""

METHOD_VERSION = 1
"""Raised whenever the same photos and settings would give other bytes."""
