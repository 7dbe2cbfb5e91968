"""Stage 1: raw tables, contracts, quarantine."""
