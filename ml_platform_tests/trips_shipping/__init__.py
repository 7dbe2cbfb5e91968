"""The trips project with a rollout: a new version is asked unseen, answers half of the trips, then all."""

from dataclasses import replace

from ml_platform_tests import trips

project = replace(trips.project, name="trips")
