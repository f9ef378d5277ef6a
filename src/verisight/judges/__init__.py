"""Annotators: who says which of two answers is better, and how far they can be trusted."""
