"""Stage 3: drift and performance on late labels."""
