"""Stage 5: reports and the gate."""
