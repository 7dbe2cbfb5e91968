"""One file a feature view; the file name is the view name."""
