"""The code inside a registered model; it imports nothing else of oncoshift.

Training uses the same preprocessing and classifier, so that the served model is the evaluated one.
"""
