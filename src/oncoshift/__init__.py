"""oncoshift: adapts a tissue classifier to an unlabelled organ and measures whether that worked."""

import os

# Idle OpenMP threads sleep instead of spinning; otherwise trainings that share the cores slow each
# other down while they wait. OpenMP reads the variable once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# MLflow, DVC and ONNX Runtime send no telemetry, and MLflow logs warnings and errors only.
for _name, _value in {
    "DVC_NO_ANALYTICS": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "ORT_DISABLE_TELEMETRY": "1",
}.items():
    os.environ.setdefault(_name, _value)

__version__ = "0.1.0"
