"""Adaptation methods, one a file, all with the interface in `base`."""
