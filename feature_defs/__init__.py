"""The Feast repository of the flights project: entities, views and their registration."""
