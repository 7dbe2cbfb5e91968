"""The feature views that the models of this project share, in the order of the served vector."""

ALL = (
    "scheduled_flight",
    "origin_hour_demand",
    "aircraft",
    "previous_leg",
    "previous_departure",
    "weather_now",
    "origin_departures",
    "origin_demand",
    "origin_carrier_demand",
    "origin_cancellations",
    "origin_carrier_departures",
    "carrier_arrivals",
    "route_arrivals",
    "destination_arrivals",
    "flight_number_arrivals",
    "inbound_aircraft",
    "local_departure",
)
