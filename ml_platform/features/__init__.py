"""Stage 2: feature tables, windows, publishing online, skew."""
