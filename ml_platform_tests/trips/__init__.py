"""A second project, made up: will a trip end late, asked an hour before it leaves? Nothing in the platform knows it."""

from datetime import date

from ml_platform.spec import Project

project = Project(
    name="trips",
    description="Will a trip end ten minutes late or more, asked an hour before it leaves?",
    features="ml_platform_tests.trips.repository",
    timezone="America/New_York",
    starts=date(2024, 2, 26),
    ready_from=date(2024, 2, 28),
    serves_from=date(2024, 3, 6),  # clocks change on the 10th
    replay_until=date(2024, 3, 9),
    ends=date(2024, 3, 31),
)
