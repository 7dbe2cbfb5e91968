"""Several challengers compete for one model's place: the gate judges each on the same fresh rows, the best one wins.

They may differ in window (rolling or expanding), estimator or choice of views. Of several the luckiest looks better
than it is, so each has to be surer: the risk that the gate allows is shared among them (Bonferroni).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import polars as pl

from ml_platform.evaluation.baselines import baselines
from ml_platform.evaluation.comparison import fresh, score
from ml_platform.evaluation.cost import latency_ms
from ml_platform.evaluation.gate import Evidence, Judged, judge
from ml_platform.evaluation.steps import champion_of, load_version, maturity_of, skew_of, trained_until
from ml_platform.spec import HAPPENS_AT, DeclarationError, ModelSpec, NoChampion, Project, UnknownName, Verdict
from ml_platform.spec.fingerprint import fingerprint
from ml_platform.stores.delta import Lake
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.ledger_kinds import GATE, TRAINING
from ml_platform.stores.model_files import as_registered, said_of
from ml_platform.stores.pages import Pages
from ml_platform.stores.tracking import ModelVersion, Tracking
from ml_platform.stores.tracking_entries import ASSET_KEY, RUN_ID
from ml_platform.training.described import about_version
from ml_platform.training.steps import read_set
from ml_platform.training.training_set import HOLDOUT, PART, TRAIN

ENTERED_FROM = "entered_from"  # tag of a version that was entered from another model's: which one


def check_contests(project: Project) -> None:
    """Refuse challengers that could not take the place they compete for.

    Raises:
        UnknownName: there is no such model.
        DeclarationError: it answers another question, needs views that the model lacks, or is challenged itself.
    """
    for spec in project.models.values():
        if spec.challenges is None:
            continue
        if spec.challenges not in project.models:
            raise UnknownName(f"model (challenged by {spec.name})", spec.challenges, project.models)
        holder = project.models[spec.challenges]
        if holder.challenges is not None or spec.policy is not None:
            raise DeclarationError(
                f"model {spec.name} challenges {holder.name}, so it may have no policy of its own, and {holder.name} "
                f"may challenge nobody; a contest is held for a model that is retrained and served"
            )
        if fingerprint(spec.task) != fingerprint(holder.task):
            raise DeclarationError(f"model {spec.name} challenges {holder.name} but has another task; give it the same")
        foreign = sorted(set(spec.views) - set(holder.views))
        if foreign:
            raise DeclarationError(
                f"model {spec.name} challenges {holder.name} with {', '.join(foreign)}, which the rows of "
                f"{holder.name} lack; add them to the views of {holder.name} too, or leave them out"
            )


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A competitor's newest version and what the gate says of it."""

    spec: ModelSpec
    version: ModelVersion
    judged: Judged

    @property
    def name(self) -> str:
        """Model and version."""
        return f"{self.spec.name} v{self.version.version}"

    @property
    def gain(self) -> float:
        """Log-loss won against the champion; minus infinity where it is not known."""
        return float(self.judged.verdict.measures.get("gain", float("-inf")))


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Who competed, against which champion; the winner (None: none passes the gate) and the sentence for it.

    absent: models that compete but were never trained.
    """

    champion: ModelVersion
    candidates: Sequence[Candidate]
    absent: Sequence[str]
    winner: Candidate | None

    @property
    def verdict(self) -> Verdict:
        """Passes when somebody won; unknown if nobody could be judged."""
        told = [f"{each.name}: {each.judged.verdict.state}, {each.judged.verdict.reason}" for each in self.candidates]
        missing = f" ({', '.join(self.absent)} never trained)" if self.absent else ""
        if self.winner is not None:
            others = "; ".join(line for line, each in zip(told, self.candidates, strict=True) if each != self.winner)
            reason = f"{self.winner.name} wins: {self.winner.judged.verdict.reason}{'. ' if others else ''}{others}"
            measures = {**self.winner.judged.verdict.measures, "winner": self.winner.name}
            return Verdict(state=self.winner.judged.verdict.state, reason=reason + missing, measures=measures)
        known = any(each.judged.verdict.state == "fail" for each in self.candidates)
        reason = f"none of {len(told)} challengers may replace version {self.champion.version}: {'; '.join(told)}"
        return Verdict(state="fail" if known else "unknown", reason=reason + missing)

    def table(self) -> pl.DataFrame:
        """One line a candidate, the best first: state, rows, days, log-loss, gain with its interval, confidence."""
        names = ("rows", "days", "log_loss", "auc", "gain", "gain_low", "gain_high", "confidence", "latency_ms_p95")
        lines = [
            {
                "candidate": each.name,
                "state": each.judged.verdict.state,
                **{name: _float(each.judged.verdict.measures.get(name)) for name in names},
            }
            for each in sorted(self.candidates, key=lambda one: -one.gain)
        ]
        return pl.DataFrame(
            lines, schema={"candidate": pl.String, "state": pl.String, **dict.fromkeys(names, pl.Float64)}
        )


def _float(value: float | int | str | None) -> float | None:
    return None if value is None else float(value)


def hold_contest(
    lake: Lake, tracking: Tracking, ledger: Ledger, project: Project, holder: ModelSpec, scratch: Path
) -> Contest:
    """Judge the newest version of every competitor (the holder's, too, if it is not the champion).

    Raises:
        NoChampion: there is nobody whose place could be taken.
        MissingHistory: the holder has no training set.
    """
    champion = champion_of(tracking, holder.name)
    if champion is None:
        raise NoChampion(
            f"model {holder.name} has no champion, so there is no place to compete for; materialize "
            f"models/{holder.name}, evaluations/{holder.name} and its service first"
        )
    trained, absent = _newest(tracking, project, holder, champion)
    parts, rival = read_set(lake, holder), load_version(tracking, champion, scratch)
    holdout = fresh(parts.filter(pl.col(PART) == HOLDOUT), trained_until(champion))
    answers = baselines(holder, parts.filter(pl.col(PART) == TRAIN))
    # Each of several has to be surer than one alone.
    shared = 1 - (1 - holder.gate.confidence) / max(len(trained), 1)
    asked = replace(holder, gate=replace(holder.gate, confidence=shared))
    candidates = []
    for spec, version in trained:
        model = load_version(tracking, version, scratch)
        told = Evidence(
            scored=score(holdout, model, rival, project.timezone, answers),
            rows=holdout,
            encoding=model.encoding,
            weights=model.weights(),
            latency_ms=latency_ms(model, holdout) if holdout.height else [],
            timezone=project.timezone,
            maturity=maturity_of(ledger, holder),
            skew=skew_of(ledger, project, holder),
            stands=_learned_from(holdout, spec, version, holder),
        )
        candidates.append(Candidate(spec=spec, version=version, judged=judge(told, asked)))
    passed = [each for each in candidates if each.judged.verdict.passed]
    winner = max(passed, key=lambda each: each.gain, default=None)
    return Contest(champion=champion, candidates=candidates, absent=absent, winner=winner)


def _newest(
    tracking: Tracking, project: Project, holder: ModelSpec, champion: ModelVersion
) -> tuple[list[tuple[ModelSpec, ModelVersion]], list[str]]:
    """Everybody's newest version but the champion itself; and who has none."""
    registered = tracking.names()
    competing = [holder, *project.challengers_of(holder)]
    newest = {spec.name: tracking.versions(spec.name)[-1] for spec in competing if spec.name in registered}
    trained = [(spec, newest[spec.name]) for spec in competing if spec.name in newest]
    place = (champion.name, champion.version)
    return (
        [(spec, found) for spec, found in trained if (found.name, found.version) != place],
        [spec.name for spec in competing if spec.name not in newest],
    )


def _learned_from(holdout: pl.DataFrame, spec: ModelSpec, version: ModelVersion, holder: ModelSpec) -> str | None:
    """Why a candidate cannot be judged on these rows: it was trained on some of them."""
    known = holdout.filter(pl.col(HAPPENS_AT) <= trained_until(version)).height
    if not known:
        return None
    return (
        f"it was trained on {known} of {holdout.height} rows, up to {trained_until(version):%Y-%m-%d %H:%M} UTC; "
        f"materialize training_sets/{holder.name} anew, or train {spec.name} again with the same rows held out"
    )


def enter(
    tracking: Tracking,
    ledger: Ledger,
    held: Contest,
    holder: ModelSpec,
    now: datetime,
    scratch: Path,
    *,
    run_id: str,
    pages: Pages,
) -> int | None:
    """Make the winner a version of the holder and write down the gate's verdict on it; None: nobody won.

    Its files are registered again under the holder's name, unless they were before; the run manifest inside still names
    the model that it was trained as, so it can be made again.
    """
    if held.winner is None:
        return None
    version, verdict = held.winner.version.version, held.winner.judged.verdict
    if held.winner.spec.name != holder.name:
        made = _entered(tracking, ledger, held.winner, holder, scratch, run_id, pages)
        version, files = made.version, _files(ledger, held.winner) or made.files
        entered = {"version": version, "decision": 0, "entered_from": held.winner.name, "files": dict(files)}
        ledger.write(TRAINING, holder.name, f"{held.winner.name} entered", now, entered)
    body = {
        "version": version,
        "state": verdict.state,
        "reason": f"it won a contest of {len(held.candidates)}, as {held.winner.name}: {verdict.reason}",
        "champion": held.champion.version,
        "measures": dict(verdict.measures),
        "contest": {each.name: each.judged.verdict.state for each in held.candidates},
    }
    ledger.write(GATE, holder.name, f"v{version} in a contest with v{held.champion.version}", now, body)
    return version


def _files(ledger: Ledger, winner: Candidate) -> Mapping[str, str] | None:
    return said_of(ledger, winner.spec.name, str(winner.version.version))


def _entered(
    tracking: Tracking,
    ledger: Ledger,
    winner: Candidate,
    holder: ModelSpec,
    scratch: Path,
    run_id: str,
    pages: Pages,
) -> ModelVersion:
    for known in tracking.versions(holder.name):
        if known.tags.get(ENTERED_FROM) == winner.name:
            return known
    tags = {**winner.version.tags, "consumed_decision": "0", ENTERED_FROM: winner.name}
    key = f"contests/{holder.name}"
    about = about_version({**tags, RUN_ID: run_id, ASSET_KEY: key}, pages, winner.judged.verdict)
    files = tracking.download(winner.version, scratch / "winner")
    return tracking.register(
        holder.name,
        as_registered(files, ledger, winner.spec.name, str(winner.version.version), scratch / "checked"),
        estimator=winner.spec.estimator,
        run_name=f"{winner.name}, winner of contests/{holder.name}",
        parameters={**winner.spec.parameters, "estimator": winner.spec.estimator, "seed": winner.spec.seed},
        metrics={},
        tags=tags,
        dagster_run_id=run_id,
        asset_key=key,
        about=about,
    )
