"""The stores as Dagster resources, and the profiles that place them."""
