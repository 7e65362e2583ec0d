"""One retraining, step by step: each step does its work once, logs it to MLflow, and can be run again after a crash.

`flows/retrain.py` runs these steps as Prefect tasks; nothing here knows Prefect.
"""
