"""The network that methods train: trunk, heads, gradient reversal."""
