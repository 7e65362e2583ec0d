"""From image files to packs: where tiles come from, validation, splits by group, and stain normalisation."""
