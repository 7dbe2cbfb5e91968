"""How the long-lived processes treat Python's garbage collector."""

import gc


def settle() -> None:
    """What was loaded stays: looking at it again and again for garbage takes up to a second at a time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
