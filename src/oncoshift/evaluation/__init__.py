"""Metrics, bootstrap intervals over groups, paired comparisons and plots, from arrays alone."""
