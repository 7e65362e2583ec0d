"""Adapters for the layouts of data sets: one file each, by its name in `ingest.adapter`."""
