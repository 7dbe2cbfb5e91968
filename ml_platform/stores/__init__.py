"""The stores: one plain adapter per technology; no Dagster."""
