"""As in the trips project."""

from ml_platform_tests.trips.policies.lateness import lateness

__all__ = ["lateness"]
