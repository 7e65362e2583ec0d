"""The code inside a registered model; it imports nothing else of oncoshift.

Training uses the same preprocessing and classifier, so that the served model is the evaluated one.
"""

import os

# ONNX Runtime reads it when it is imported, and would otherwise keep an ID of the machine.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
