"""The built-in world and its model."""
