"""What `feast apply` reads."""

from ml_platform.features.feast_objects import feast_objects
from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project

_profile = Profile.from_environment()
globals().update(feast_objects(load_project(_profile.project), _profile.lake))
