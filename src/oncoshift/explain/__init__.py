"""Integrated Gradients, the share that falls on nuclei, and the gallery."""
