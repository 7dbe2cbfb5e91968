"""Stage 4: training sets and trainers."""
