"""Runs, the demo and the report."""
