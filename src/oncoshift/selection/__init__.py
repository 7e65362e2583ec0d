"""Scores that rank models without target labels, one a file, and the rule that picks a model."""
