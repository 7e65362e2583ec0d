"""From image files to packs: sources, validation, splits by group and stain normalisation."""
