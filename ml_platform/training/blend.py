"""The weighted mean of several models' probabilities, each stored in its own way in one folder."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from ml_platform.spec import ModelRefused
from ml_platform.training.contributions import Contributions, weighted
from ml_platform.training.encoding import Floats
from ml_platform.training.model import Model, read_schema, stored_digests, text_digest

SHARES_FILE = "shares.json"


@dataclass(frozen=True, kw_only=True)
class Blend(Model):
    """Models of one encoding, and the share of each (they sum to 1)."""

    estimator: ClassVar[str] = "blend"
    file: ClassVar[str] = SHARES_FILE
    members: tuple[Model, ...]
    shares: tuple[float, ...]

    def predict_matrix(self, matrix: Floats) -> Floats:
        """P(label = 1)."""
        answers = [
            share * member.predict_matrix(matrix) for member, share in zip(self.members, self.shares, strict=True)
        ]
        total: Floats = np.sum(answers, axis=0)
        return total

    def predict_quantity(self, matrix: Floats) -> Floats | None:
        """The truth's amount, by the members that know of it."""
        answers = [member.predict_quantity(matrix) for member in self.members]
        known = [answer for answer in answers if answer is not None]
        return np.mean(known, axis=0) if known else None

    def contributions(self, row: Floats) -> Contributions:
        """Those of its members, on the scale on which they are blended: probability.

        Raises:
            NoContributions: a member has none.
        """
        parts = [member.contributions(row) for member in self.members]
        return weighted(parts, self.shares, [member.estimator for member in self.members])

    def weights(self) -> Floats:
        """Those of all members."""
        return np.concatenate([member.weights() for member in self.members])

    def save(self, folder: Path) -> Path:
        """Each member in a folder of its own beside the shares."""
        for number, member in enumerate(self.members):
            member.save(folder / f"member-{number}")
        return super().save(folder)

    def _write(self, path: Path) -> None:
        digests = [member.digests() for member in self.members]
        path.write_text(json.dumps({"shares": list(self.shares), "members": digests}, indent=1))

    def _digests(self) -> dict[str, str]:
        return {self.file: text_digest(json.dumps([member.digests() for member in self.members]) + str(self.shares))}


def blended(members: Sequence[Model], shares: Sequence[float]) -> Blend:
    """The members put together; they were trained on the same rows."""
    (encoding, *others) = [member.encoding for member in members]
    assert all(other.inputs == encoding.inputs for other in others), "members are trained on the same inputs"
    names = [member.estimator for member in members]
    named = [(f"{name}_{number}", member) for number, (name, member) in enumerate(zip(names, members, strict=True))]
    facts = {f"{name}_{key}": value for name, member in named for key, value in member.facts.items()}
    weights = {
        name: sum(share * member.importances.get(name, 0.0) for member, share in zip(members, shares, strict=True))
        for name in encoding.inputs
    }
    devices = sorted({str(member.facts["device"]) for member in members})
    return Blend(
        encoding=encoding,
        facts={"rows": members[0].facts["rows"], "device": ", ".join(devices), **facts},
        importances=weights,
        curves={f"{name}_{key}": curve for name, member in named for key, curve in member.curves.items()},
        members=tuple(members),
        shares=tuple(shares),
    )


def load_blend(folder: Path, load: Callable[[Path], Model]) -> Blend:
    """A saved blend; ``load`` loads a member.

    Raises:
        ModelRefused: a member or the shares are missing or damaged.
    """
    schema = read_schema(folder)
    stored = json.loads((folder / SHARES_FILE).read_text())
    members = [load(folder / f"member-{number}") for number in range(len(stored["shares"]))]
    if [stored_digests(folder / f"member-{n}") for n in range(len(members))] != stored["members"]:
        raise ModelRefused(f"{folder}: a member is not the one that was blended; register the model again")
    return Blend(
        encoding=schema["encoding"],
        facts=schema["facts"],
        importances=schema["importances"],
        members=tuple(members),
        shares=tuple(stored["shares"]),
    )
