"""One file a declaration; the file name is its name."""
