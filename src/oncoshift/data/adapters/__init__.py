"""One file a data set layout; each turns a folder into rows of path, organ, label and group."""
