"""Packs: the decoded tiles of each stain variant, in shards."""
