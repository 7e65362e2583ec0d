"""The Optuna study over the ranges that stand beside the defaults in settings."""
