"""The sensor through which Dagster's daemon evaluates the conditions live."""

import warnings

import dagster as dg

NAME = "automation"


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
