"""An open machine-learning platform in which everything is a Dagster asset."""

__version__ = "0.1.0"
