"""Anchors: measures of morphology that are higher in malignant tissue of every organ.

An anchor is prior knowledge, not a label: it orients a model where the sources' labels cannot.
"""
