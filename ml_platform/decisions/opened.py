"""What the commands work with that ask or decide about a model."""

from dataclasses import dataclass
from datetime import UTC, datetime

import click

from ml_platform.resources.profiles import Profile
from ml_platform.spec import LedgerBroken, Project, RetrainPolicy, UnknownName, WordRefused
from ml_platform.stores.clock import Clock
from ml_platform.stores.home import Home
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.ledger_kinds import OF_A_MODEL
from ml_platform.stores.tracking import Tracking


@dataclass(frozen=True)
class Here:
    """The state folder that the environment names."""

    profile: Profile
    project: Project
    ledger: Ledger
    now: datetime

    @classmethod
    def opened(cls) -> "Here":
        """Of the present profile."""
        from ml_platform.resources.projects import load_project

        profile = Profile.from_environment()
        Home(profile.home).prepare(profile.project)
        now = Clock(profile.clock_path).now()
        return cls(profile, load_project(profile.project), Ledger(profile.ledger_path), now)

    @property
    def tracking(self) -> Tracking:
        """The registry."""
        return Tracking(self.profile.mlflow_uri, self.profile.mlflow_artifacts)

    def declared(self, model: str) -> str:
        """The model's name, if there is one.

        Raises:
            UnknownName: there is none.
        """
        if model not in self.project.models:
            raise UnknownName("model", model, self.project.models)
        return model

    def known(self, model: str) -> None:
        """Look whether there is, or was, such a model.

        Raises:
            UnknownName: there never was.
        """
        known = {*self.project.models, *self.ledger.subjects(OF_A_MODEL)}
        if model not in known:
            raise UnknownName("model", model, known)

    def retrained(self, model: str) -> str:
        """The model's name, if a policy decides about it.

        Raises:
            UnknownName: there is no such model.
            WordRefused: nothing retrains it.
        """
        if self.project.models[self.declared(model)].policy is None:
            raise WordRefused(
                f"no policy retrains {model}; materialize training_sets/{model}, models/{model} and "
                f"evaluations/{model}, or give it a policy"
            )
        return model

    def policy(self, model: str) -> RetrainPolicy:
        """That decides about the model."""
        return self.project.retrain_policies[str(self.project.models[model].policy)]

    def moment(self, text: str | None) -> datetime:
        """A moment as people write it (ISO), with its timezone; now, if none is given.

        Raises:
            click.BadParameter: it is none, lacks its timezone, or has not come yet.
        """
        if text is None:
            return self.now
        try:
            found = datetime.fromisoformat(text)
        except ValueError as error:
            raise click.BadParameter(f"{text!r} is no moment like 2013-04-15T12:30+00:00", param_hint="--at") from error
        if found.tzinfo is None:
            raise click.BadParameter(
                f"{text!r} has no timezone; for UTC write {found.isoformat()}+00:00", param_hint="--at"
            )
        if found > self.now:
            raise click.BadParameter(
                f"{text!r} has not come yet: it is {self.now:%Y-%m-%d %H:%M:%S} UTC for the platform", param_hint="--at"
            )
        return found.astimezone(UTC)

    def broken(self, *, anyway: bool) -> str | None:
        """What is wrong with the ledger's chain, said aloud; None if nothing is.

        Raises:
            LedgerBroken: something is, and nobody asked for an answer anyway.
        """
        found = self.ledger.verify()
        if found.state != "fail":
            return None
        if not anyway:
            raise LedgerBroken(f"{found.reason}. With --anyway what stands there is told")
        click.secho(f"LedgerBroken: {found.reason}. What follows cannot be trusted.", fg="red", err=True)
        return found.reason
