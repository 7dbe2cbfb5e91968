"""As in the trips project."""

from ml_platform_tests.trips.tables.asked import asked

__all__ = ["asked"]
