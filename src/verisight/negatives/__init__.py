"""Rejected answers: view x guidance x check."""
