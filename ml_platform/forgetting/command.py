"""`ml-platform forget`: what it does in which order, and what it says."""

import sys
from collections.abc import Callable, Sequence

from ml_platform.forgetting.places import Held
from ml_platform.forgetting.work import Forgetting
from ml_platform.resources.profiles import Profile
from ml_platform.stores.home import Home


def forget(profile: Profile, written: str, *, remove: bool, told: Callable[[str], None]) -> int:
    """List what holds ``<entity>=<value>`` or remove it; returns the exit code: 1 if something remains.

    Raises:
        UnknownName, DeclarationError: it is written otherwise, or the project has no such entity.
        HomeLocked: somebody works with the state folder. HomeDamaged: it is none of this project's.
        SourceError, StoreUnavailable: it was cut off there; the same command ends it.
    """
    home, work = Home(profile.home), Forgetting.of(profile, written)
    if home.is_made:
        home.check(profile.project)
        if remove:
            return _remove(work, told)
        held = work.held()
        if held:
            told(listed(work, held))
            return 0
    told(nothing(work))
    return 0


def _remove(work: Forgetting, told: Callable[[str], None]) -> int:
    from rich.progress import track

    with work.alone():
        held = work.held()
        if not held and not work.cut_off:
            told(nothing(work))
            return 0
        for step in track(work.steps(held), description="forget", transient=True, disable=not sys.stdout.isatty()):
            step.do()
    told(done(work, held))
    return int(bool(work.remains))


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
