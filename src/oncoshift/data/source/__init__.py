"""Where tiles come from: archives that are unpacked, adapters that list a data set's tiles, and what neither reads."""
