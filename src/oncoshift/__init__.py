"""oncoshift: adapt a tissue classifier to an unlabelled organ, and prove that it worked."""

__version__ = "0.1.0"
