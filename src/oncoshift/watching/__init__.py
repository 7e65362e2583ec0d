"""Watching of a registered model without labels: each new batch against what it was trained on."""
