"""As in the trips project."""

from ml_platform_tests.trips.services.desk import desk

__all__ = ["desk"]
