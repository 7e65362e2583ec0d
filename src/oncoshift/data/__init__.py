"""From image files to packs: adapters, validation, splits by group, stain normalisation, and the made-up phantom."""
