"""What `ml-platform forget` says."""

from collections.abc import Sequence

from ml_platform.forgetting.places import Held
from ml_platform.forgetting.work import Forgetting


def nothing(work: Forgetting) -> str:
    """Where nothing was found."""
    return f"nothing in {work.profile.home} holds {work.entity}"


def listed(work: Forgetting, held: Sequence[Held]) -> str:
    """What holds it, and what would be done."""
    lines = [f"{work.entity} is held by", *(f"  {one}" for one in held)]
    lines += [*_unsearched(work), "nothing was changed; with --yes all of it is removed, and it cannot be brought back"]
    return "\n".join(lines)


def done(work: Forgetting, held: Sequence[Held]) -> str:
    """What was removed, what is kept on purpose, and what remains."""
    lines = [f"{work.entity} is forgotten: removed from {len(held)} places"]
    lines += [f"  {one}" for one in held]
    lines += _unsearched(work)
    lines += [
        "kept: what was counted over many entities, this one among them. `ml-platform backfill --all` makes the "
        "feature tables without it; models that learned from it carry the tag forgotten_rows, the next ones learn "
        "without it"
    ]
    lines += [f"note: {left}" for left in work.left if left.elsewhere]
    if work.remains:
        lines += ["what remains, since it could not be removed:", *(f"  {left}" for left in work.remains)]
    return "\n".join(lines)


def _unsearched(work: Forgetting) -> list[str]:
    if work.subject.words("").told:
        return []
    shown, name = work.entity.text, work.entity.name
    return [
        f"{shown!r} cannot be told from other words: texts and files were searched for {work.entity} (and "
        f'"{name}": "{shown}") alone'
    ]
