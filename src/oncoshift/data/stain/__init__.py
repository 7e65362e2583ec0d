"""Stain normalisation: one file a method."""
