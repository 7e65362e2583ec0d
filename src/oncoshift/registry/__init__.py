"""MLflow: logging, packaging, the gate, promotion and rollback."""
