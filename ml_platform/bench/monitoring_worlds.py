"""Made-up days of thirty columns: nothing ever changes, or season and weather move some of them."""

from datetime import date

import numpy as np

from ml_platform.bench.monitoring_days import Days, Floats

FIRST = date(2023, 1, 2)  # a Monday
COLUMNS, ROWS = 30, 100
_YEAR = 365.25


def stationary(days: int, chance: np.random.Generator) -> Days:
    """Rows that are independent and alike on all days; numbers of several shapes, some missing."""
    place = np.repeat(np.arange(days), ROWS)
    return _days(_shaped(chance.standard_normal((len(place), COLUMNS)), chance), place)


def seasonal(days: int, chance: np.random.Generator) -> Days:
    """A share of the columns, drawn from 30 to 70 %, is moved by season, weather and weekday.

    Weather is a level of the day that stays for some days (autoregressive, .7), shared by all rows of the day.
    """
    place = np.repeat(np.arange(days), ROWS)
    moved = chance.random(COLUMNS) < chance.uniform(0.3, 0.7)
    day = np.arange(days)[:, None]
    season = chance.uniform(0.5, 1.5, COLUMNS) * np.sin(2 * np.pi * (day / _YEAR + chance.random(COLUMNS)))
    weather = np.zeros((days, COLUMNS))
    for n in range(1, days):
        weather[n] = 0.7 * weather[n - 1] + chance.normal(0, 0.4, COLUMNS)
    weekday = chance.normal(0, 0.3, (7, COLUMNS))[np.arange(days) % 7]
    levels = np.where(moved, season + weather + weekday, 0.0)
    return _days(_shaped(levels[place] + chance.standard_normal((len(place), COLUMNS)), chance), place)


def _shaped(values: Floats, chance: np.random.Generator) -> Floats:
    """A third of the columns as they are, a third skewed, the rest counts of few values; every fifth has gaps."""
    shaped = values.copy()
    shaped[:, 1::3] = np.exp(values[:, 1::3] / 2)
    shaped[:, 2::3] = np.floor(np.clip(values[:, 2::3] + 2, 0, 6))
    shaped[:, ::5][chance.random(shaped[:, ::5].shape) < 0.05] = np.nan
    return shaped


def _days(values: Floats, place: np.ndarray) -> Days:
    return Days([f"column_{n:02}" for n in range(values.shape[1])], values, place, FIRST)
