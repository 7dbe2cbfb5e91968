"""Who answers: champion or canary, by a hash of the entity, so that every worker and every replica agrees."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal

Variant = Literal["champion", "canary", "fallback"]
CHAMPION: Variant = "champion"
CANARY: Variant = "canary"
FALLBACK: Variant = "fallback"  # the champion's answer to what the canary was to answer and could not: no evidence
_BYTES = 8


def place(salt: str, unit: Sequence[Any]) -> float:
    """Where a unit stands in [0, 1): uniform over units, always the same for one, and another with another salt."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in unit)  # 1 and "1" are different units
    digest = blake2b(text.encode(), digest_size=_BYTES, key=salt.encode()[:64]).digest()
    # 53 bits: what a float in [0, 1) can hold without being rounded up to 1.
    return (int.from_bytes(digest) >> 11) / (1 << 53)


@dataclass(frozen=True, kw_only=True)
class Split:
    """The share (0..1) of units that the canary answers. A share that grows keeps whom it had.

    salt: names the rollout: another one draws other units, so that the same are not always tried first.
    by: entities whose values make a unit.
    """

    by: tuple[str, ...]
    share: float = 0.0
    salt: str = ""

    def variant(self, row: Mapping[str, Any]) -> Variant:
        """Who answers this row."""
        if not self.share:
            return CHAMPION
        return CANARY if place(self.salt, [row[name] for name in self.by]) < self.share else CHAMPION

    def probability(self, variant: Variant) -> float:
        """With which a unit is given to this variant."""
        return self.share if variant == CANARY else 1 - self.share
