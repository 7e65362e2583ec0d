"""A handful of labels that a person gives tiles of the target: proposed, given, checked, kept.

Part of them train a method that reads them (`few_labels`), the others gate. A group's labels have
one use, for good: what has trained a model cannot judge one.
"""
