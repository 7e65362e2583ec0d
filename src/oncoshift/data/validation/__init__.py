"""Which tiles can be used: checks of one tile, byte-identical copies, the table's schema, and the report."""
