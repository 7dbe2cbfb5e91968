"""The service that people ask."""

from ml_platform.spec import Service

# Smaller than what an hour may bring, so that a caller has to mind it.
desk = Service(model="late", description="Answers with the probability that a trip ends late.", max_rows=5)
