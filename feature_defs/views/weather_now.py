"""The newest weather report of the airport."""

from datetime import timedelta

from feature_defs.entities import origin
from ml_platform.spec import FeatureView, Window

# A report older than six hours is no longer the weather of now: the value is missing then.
RECENT = (timedelta(hours=6),)
THREE_HOURS = (timedelta(hours=3),)

weather_now = FeatureView(
    source="weather",
    entities=(origin,),
    description="Newest report of the last six hours, rain of three hours, change of pressure in three hours.",
    features=(
        *(
            Window(column, "last", over=RECENT)
            for column in (
                "temp",
                "dewp",
                "humid",
                "wind_dir",
                "wind_speed",
                "wind_gust",
                "precip",
                "pressure",
                "visib",
            )
        ),
        Window("precip", "sum", over=THREE_HOURS),
        Window("pressure", "change", over=THREE_HOURS),
    ),
)
