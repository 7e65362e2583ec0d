"""MLflow: what is logged, how a model is packaged, the gate, promotion and rollback."""
