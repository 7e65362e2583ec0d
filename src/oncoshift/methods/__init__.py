"""Adaptation methods, one per file, with the interface of `base`."""
