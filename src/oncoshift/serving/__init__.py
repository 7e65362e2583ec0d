"""The code that travels inside a registered model. It imports nothing else of oncoshift.

Training uses the same preprocessing and the same classifier, so that what is served is what was evaluated.
"""
