"""A retraining, step by step: each step runs once, is logged to MLflow and resumes after a crash.

`flows/retrain.py` runs these steps as Prefect tasks; nothing here imports Prefect.
"""
