"""Scoring of many tiles with a registered model: from a folder, CSV or archive to Parquet files."""
