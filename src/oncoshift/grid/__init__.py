"""The grid of arXiv 2601.14678 on one's own tiles: every pool, method, stain variant and protocol.

`recipe` says what follows what; a row of the grid is trained and measured in `measure`, and
`results` reads all rows back from MLflow.
"""
