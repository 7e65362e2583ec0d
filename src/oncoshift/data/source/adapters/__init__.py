"""How data sets are laid out: one file an adapter, by its name in `ingest.adapter`."""
