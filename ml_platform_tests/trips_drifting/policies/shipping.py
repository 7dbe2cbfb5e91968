"""As in the project with a rollout."""

from ml_platform_tests.trips_shipping.policies.shipping import shipping

__all__ = ["shipping"]
