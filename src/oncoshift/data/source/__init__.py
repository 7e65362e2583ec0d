"""Sources of tiles: archives, adapters for layouts of data sets, and files that neither reads."""
