"""Validation of tiles: checks of each tile, duplicates, the table's schema, and the report."""
