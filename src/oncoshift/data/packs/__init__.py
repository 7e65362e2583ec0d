"""Packs: the decoded tiles of each stain variant, in shards; what they are, how they are made, how they are read."""
