"""Faults of a source or of what is served, planted on purpose: what a drill tries the project's alarms with."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import polars as pl

Due = Literal["contract", "freshness", "profile", "skew", "performance"]


@dataclass(frozen=True, kw_only=True)
class Planted:
    """Where in its life a fault is. day: 0 on its first one; seed: for what it chooses by chance."""

    day: int
    seed: int


Wrong = Callable[[pl.DataFrame, Planted], pl.DataFrame]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that goes wrong with a source table, or with the features that a service answers by.

    kind: the class of faults that it stands for.
    table: the raw table that it is planted into; empty: into the served features.
    columns: what it changes, and nothing else: raw columns, or full names of features. Empty: whole rows come, go or
        are late.
    wrong: a pure function: the rows of one local day as the source would have given them (with the table's columns;
        all rows of a reference table; the day's served features) -> as it gives them now. None: it is only late.
    late: so much later than known rows reach the platform.
    unreadable: the source cannot be read at all.
    live: only the events that reach the live windows are wrong; the raw table is right.
    due: who ought to see it on the first day: ``contract`` for what rules over the batch could say, ``freshness`` for
        what a deadline could, ``profile`` for what only a comparison with other days shows, ``skew`` for what is
        served otherwise than it is recomputed, ``performance`` for what only late labels can tell, days later.
    caught: what a catch on day one means, for people.
    days: how long it lasts if nobody sees it.
    """

    kind: str
    description: str
    caught: str
    table: str = ""
    columns: tuple[str, ...] = ()
    wrong: Wrong | None = None
    late: timedelta = timedelta(0)
    unreadable: bool = False
    live: bool = False
    due: Due = "contract"
    days: int = 7
    name: str = ""
