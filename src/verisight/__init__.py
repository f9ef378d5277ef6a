"""Align vision-language models with what is in the picture, and prove it."""

__version__ = "0.1.0"
