"""Work that gives way: it has a core only while nobody else wants it."""

import os
from contextlib import suppress

_LAST = 19  # niceness, where the system knows or allows nothing better


def let_others() -> None:
    """Let others have the core now, if any wants it.

    The kernel asks who may run next only at its ticks, milliseconds apart; whoever gives way says more often.
    """
    if hasattr(os, "sched_yield"):
        os.sched_yield()


def give_way() -> None:
    """Let this process, and what it starts from now on, run only where a core would be idle otherwise.

    Linux wakes others without letting an idle task finish its slice first, which even the greatest niceness waits for:
    milliseconds that the 99th percentile of a service shows.
    """
    if hasattr(os, "SCHED_IDLE"):
        with suppress(OSError):  # a container may forbid it
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            return
    os.nice(_LAST)
