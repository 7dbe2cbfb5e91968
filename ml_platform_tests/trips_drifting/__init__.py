"""The trips project with a rollout, retrained on declared drift alone: losses ask for nothing."""

from dataclasses import replace

from ml_platform_tests import trips

project = replace(trips.project, name="trips")
