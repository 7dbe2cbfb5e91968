"""As in the trips project."""

from ml_platform_tests.trips.policies.inputs import inputs

__all__ = ["inputs"]
