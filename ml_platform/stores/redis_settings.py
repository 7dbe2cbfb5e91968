"""Whether a Redis server is set to keep what it is told."""

from datetime import timedelta

from ml_platform.spec import StoreUnavailable
from ml_platform.stores.redis_wire import RedisWire, packed

_PATIENCE = timedelta(seconds=2)
_EVICTS = (
    "maxmemory-policy is {policy}: where memory runs short it drops live windows and stored values one by one, which "
    "nobody notices; set `maxmemory-policy noeviction` in redis.conf"
)
_FORGETS = (
    "appendonly is no: a restart takes back what was written since its last snapshot, which nobody notices if there is "
    "one; set `appendonly yes` in redis.conf"
)


def doubts(url: str) -> list[str]:
    """A sentence for each setting under which served values can become wrong without a sign; for who starts a process.

    ``INFO`` is asked, which says the same as ``CONFIG GET`` and is also answered where a provider has closed that.
    """
    wire = RedisWire(url, _PATIENCE)
    try:
        memory, persistence = wire.ask(packed("INFO", "memory") + packed("INFO", "persistence"), 2)
    except StoreUnavailable as error:
        unknown = "make sure that it has `maxmemory-policy noeviction` and `appendonly yes`"
        return [f"it is unknown whether Redis keeps what it is told: {error}; {unknown}"]
    finally:
        wire.close()
    said = dict(line.split(":", 1) for line in (memory + persistence).decode().splitlines() if ":" in line)
    policy = said.get("maxmemory_policy", "unknown")
    found = [] if policy == "noeviction" else [_EVICTS.format(policy=policy)]
    found += [] if said.get("aof_enabled") == "1" else [_FORGETS]
    return [f"{wire.place}: {sentence}" for sentence in found]
