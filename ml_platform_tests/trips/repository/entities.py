"""The things that features describe."""

from ml_platform.spec import Entity

trip = Entity(name="trip", description="One trip.")
line = Entity(name="line", description="The line it runs on.")
