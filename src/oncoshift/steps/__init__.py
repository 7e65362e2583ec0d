"""The steps of a retraining, one a file: `run` computes a result, and the result's `record` saves it.

The DVC stages record in a folder, a retraining in MLflow: see `recorder`. `retraining.recipe` orders the steps.
"""
