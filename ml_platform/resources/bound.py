"""The stores of a profile as Dagster resources, by the names under which assets ask for them."""

from collections.abc import Mapping

from ml_platform.resources.mlflow_run import mlflow_run
from ml_platform.resources.profiles import Profile
from ml_platform.spec import Project
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import Lake
from ml_platform.stores.forgotten import forgotten_in
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.online import online_store
from ml_platform.stores.prediction_log import PredictionLog
from ml_platform.stores.tiles_redis import tile_store
from ml_platform.stores.tracking import Tracking


def bound(profile: Profile, project: Project) -> Mapping[str, object]:
    """Every resource; nothing is opened or made before it is used."""
    return {
        "profile": profile,
        "lake": Lake(profile.lake, profile.storage_options),
        "clock": Clock(profile.clock_path),
        "forgotten": forgotten_in(profile.home),
        "ledger": Ledger(profile.ledger_path),
        "online": online_store(profile.online_address, project.name),
        "tiles": tile_store(profile.redis_url, profile.live_path, project.name),
        "tracking": Tracking(profile.mlflow_uri, profile.mlflow_artifacts),
        "mlflow": mlflow_run,
        "prediction_log": PredictionLog(profile.log_path),
    }
