"""As in the trips project."""

from ml_platform_tests.trips.models.late import late

__all__ = ["late"]
