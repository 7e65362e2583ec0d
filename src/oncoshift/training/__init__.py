"""The loop that trains every method, its checkpoints, features of frozen parts, and prediction."""
