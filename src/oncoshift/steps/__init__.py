"""The steps of a retraining, one a file: `run` computes a result, and the result's `record` tells a recorder of it.

The DVC stages record in a folder, a retraining in MLflow: see `recorder`. What follows what says `retraining.recipe`.
"""
