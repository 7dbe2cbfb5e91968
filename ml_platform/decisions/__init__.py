"""Stage 6: whether to retrain, and why."""
