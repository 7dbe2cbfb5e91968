"""What the register says about the aircraft."""

from feature_defs.entities import tailnum
from ml_platform.spec import FeatureView, Latest

aircraft = FeatureView(
    source="planes",
    entities=(tailnum,),
    description="Year of manufacture and seats of the aircraft.",
    features=(Latest("year", "int64"), Latest("seats", "int64")),
)
