"""Align vision-language models with what is in the picture, and prove it."""
