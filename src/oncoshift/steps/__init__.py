"""The steps of a retraining: `run` computes a result, and the result's `record` saves it.

DVC stages record in a folder, a retraining records in MLflow (see `recorder`). `retraining.recipe`
orders the steps.
"""
