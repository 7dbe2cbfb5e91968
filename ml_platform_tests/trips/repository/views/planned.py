"""What the plan says about one trip."""

from datetime import timedelta

from ml_platform.spec import FeatureView, Latest
from ml_platform_tests.trips.repository.entities import trip

planned = FeatureView(
    source="asked",
    entities=(trip,),
    description="The trip's length in miles.",
    online_for=timedelta(days=7),  # planned five days ahead
    features=(Latest("miles"),),
)
