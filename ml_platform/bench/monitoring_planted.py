"""Faults planted into the served features of one day.

In the features, not in the source tables (`ml-platform drill faults` does that): what is asked here is whether the
rule sees what reaches the model.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ml_platform.bench.monitoring_days import Floats

Fault = Callable[[Floats, Sequence[str], np.random.Generator], Floats]
_UTC_AHEAD = 4  # hours, in summer


def _columns(names: Sequence[str], *beginnings: str) -> list[int]:
    found = [n for n, name in enumerate(names) if name.startswith(beginnings)]
    if not found:
        raise ValueError(f"no feature begins with {' or '.join(beginnings)}; there are {', '.join(names)}")
    return found


def _scaled(beginnings: Sequence[str], times: float, plus: float = 0.0) -> Fault:
    def planted(rows: Floats, names: Sequence[str], chance: np.random.Generator) -> Floats:
        wrong = rows.copy()
        wrong[:, _columns(names, *beginnings)] = rows[:, _columns(names, *beginnings)] * times + plus
        return wrong

    return planted


def _set(beginnings: Sequence[str], value: float, share: float = 1.0) -> Fault:
    def planted(rows: Floats, names: Sequence[str], chance: np.random.Generator) -> Floats:
        wrong = rows.copy()
        there = np.flatnonzero(chance.random(len(rows)) < share)
        wrong[there[:, None], _columns(names, *beginnings)] = value
        return wrong

    return planted


def _stuck(beginnings: Sequence[str], origin: bool = False) -> Fault:
    """The day's first values stay, of one origin or of all."""

    def planted(rows: Floats, names: Sequence[str], chance: np.random.Generator) -> Floats:
        wrong, columns, of = rows.copy(), _columns(names, *beginnings), rows[:, list(names).index("origin")]
        for one in np.unique(of)[: 1 if origin else None]:
            there = np.flatnonzero(of == one)
            wrong[there[:, None], columns] = rows[there[0], columns]
        return wrong

    return planted


def _hours_later(rows: Floats, names: Sequence[str], chance: np.random.Generator) -> Floats:
    wrong, hour = rows.copy(), list(names).index("scheduled_flight__hour")
    wrong[:, hour] = (rows[:, hour] + _UTC_AHEAD) % 24
    return wrong


def _renamed(rows: Floats, names: Sequence[str], chance: np.random.Generator) -> Floats:
    """The busiest carrier has another code: unknown to the model, and without a past of its own."""
    wrong, carrier = rows.copy(), list(names).index("carrier")
    codes, counts = np.unique(rows[:, carrier], return_counts=True)
    gone = np.flatnonzero(rows[:, carrier] == codes[np.argmax(counts)])
    wrong[gone[:, None], [carrier, *_columns(names, "carrier_arrivals", "origin_carrier_departures")]] = np.nan
    return wrong


def wrong_join(*beginnings: str) -> Fault:
    """What came from these views belongs to another question of the day."""

    def planted(rows: Floats, names: Sequence[str], chance: np.random.Generator) -> Floats:
        wrong, columns = rows.copy(), _columns(names, *beginnings)
        wrong[:, columns] = rows[chance.permutation(len(rows))][:, columns]
        return wrong

    return planted


_DELAYS = ("origin_departures__dep_delay_mean", "origin_carrier_departures__dep_delay_mean")
SHARP: Mapping[str, Fault] = {
    "unit: temperatures in Celsius": _scaled(("weather_now__temp", "weather_now__dewp"), 5 / 9, -160 / 9),
    "unit: distances in kilometres": _scaled(("scheduled_flight__distance",), 1.609344),
    "unit: wind in metres a second": _scaled(("weather_now__wind_speed",), 0.44704),
    "unit: pressure in inches": _scaled(("weather_now__pressure_last",), 0.02953),
    "unit: delays in hours": _scaled(_DELAYS, 1 / 60),
    "feed lost: weather": _set(("weather_now",), np.nan),
    "feed lost: departures, nothing counted": _set(("origin_departures__dep_delay_count",), 0.0),
    "feed lost: departures, no mean": _set((*_DELAYS, "origin_departures__late_share"), np.nan),
    "feed lost: aircraft": _set(("aircraft",), np.nan),
    "time zone: hours in UTC": _hours_later,
    "renamed: the busiest carrier": _renamed,
    "sign flipped: delays": _scaled(_DELAYS, -1.0),
    "sign flipped: temperatures": _scaled(("weather_now__temp",), -1.0),
    "stuck sensor: weather, everywhere": _stuck(("weather_now",)),
    "stuck sensor: weather, one airport": _stuck(("weather_now",), origin=True),
    "a default for a gap: seats": _set(("aircraft__seats",), 0.0, 0.3),
}
JOINT: Mapping[str, Fault] = {
    "wrong join: timetable": wrong_join("scheduled_flight"),
    "wrong join: aircraft": wrong_join("aircraft", "previous_leg", "inbound_aircraft"),
    "wrong join: origin's departures": wrong_join("origin_departures", "origin_demand", "origin_cancellations"),
    "wrong join: weather": wrong_join("weather_now"),
    "wrong join: destination": wrong_join("destination_arrivals", "route_arrivals"),
}
