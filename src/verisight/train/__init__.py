"""Training: one loop, one preference step."""
