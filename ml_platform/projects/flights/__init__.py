"""New York flights 2013: will a flight arrive late, asked two hours before it leaves?"""

from datetime import date

from ml_platform.spec import Project

project = Project(
    name="flights",
    description="Will a flight from New York arrive 15 minutes late or more, asked two hours before departure?",
    features="feature_defs",
    timezone="America/New_York",
    starts=date(2013, 1, 1),
    ready_from=date(2013, 1, 15),
    serves_from=date(2013, 4, 1),
    replay_until=date(2013, 5, 31),
    ends=date(2013, 12, 31),
)
