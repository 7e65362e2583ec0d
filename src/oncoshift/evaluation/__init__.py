"""Metrics, intervals by bootstrap over groups, paired comparisons, plots. Takes arrays, returns values."""
