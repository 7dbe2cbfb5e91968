"""As in the trips project."""

from ml_platform_tests.trips.tables.ended import ended

__all__ = ["ended"]
