"""The things that features describe; a name is the join key's column."""

from ml_platform.spec import Entity

flight_id = Entity(name="flight_id", description="One flight: carrier, number, origin and local date.")
origin = Entity(name="origin", description="Airport of departure.")
dest = Entity(name="dest", description="Airport of arrival.")
carrier = Entity(name="carrier", description="Airline.")
flight = Entity(name="flight", dtype="int64", description="The carrier's flight number.")
tailnum = Entity(name="tailnum", description="The aircraft.")
sched_hour = Entity(name="sched_hour", dtype="int64", description="Scheduled hour of departure, unix seconds.")
