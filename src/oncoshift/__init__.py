"""oncoshift: adapt a tissue classifier to an unlabelled organ, and prove that it worked."""

import os

# Threads of OpenMP that wait for work sleep. Left to themselves they spin, and trainings that share the cores take from
# one another the time in which they do nothing. Torch's library reads this once, as torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# MLflow and DVC tell nobody of their use, and MLflow says what is wrong and no more.
for _name, _value in {
    "DVC_NO_ANALYTICS": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}.items():
    os.environ.setdefault(_name, _value)

__version__ = "0.1.0"
