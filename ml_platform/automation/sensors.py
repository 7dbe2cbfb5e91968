"""The sensors of Dagster's daemon: it evaluates the conditions live, and tells people what is wrong."""

import warnings
from collections.abc import Callable

import dagster as dg

NAME = "automation"
TELLS = "alerts"


def automation_sensor(*, replayed: bool = False) -> dg.AutomationConditionSensorDefinition:
    """Runs by default, looks every five seconds; on replayed state it stands still, since the replay's driver decides.

    The conditions are classes of this platform, so they are evaluated where its code runs; and one run a day and
    partition, as the driver of replayed ticks does it, instead of backfills.
    """
    with warnings.catch_warnings():
        # Evaluating in the code server is marked beta, and is what custom conditions are documented to need.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.AutomationConditionSensorDefinition(
            NAME,
            target=dg.AssetSelection.all(),
            default_status=dg.DefaultSensorStatus.STOPPED if replayed else dg.DefaultSensorStatus.RUNNING,
            minimum_interval_seconds=5,
            use_user_code_server=True,
            emit_backfills=False,
            description="Evaluates when each asset is made again; the reasons stand in the conditions' trees.",
        )


def alert_sensors(tell: Callable[[], str] | None, *, replayed: bool = False) -> list[dg.SensorDefinition]:
    """Calls ``tell`` each minute, which says what came of it; on replayed state the replay's driver does, each day.

    None, and so no sensor: there is no channel to tell people on.
    """
    if tell is None:
        return []

    @dg.sensor(
        name=TELLS,
        target=dg.AssetSelection.keys(),
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.STOPPED if replayed else dg.DefaultSensorStatus.RUNNING,
        description="Sends what people are to be told of incidents to the webhook and by mail; requests no run.",
    )
    def alerts() -> dg.SkipReason:
        return dg.SkipReason(tell())

    return [alerts]
