"""Stage 7: the service and batch predictions."""
