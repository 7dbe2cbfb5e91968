"""The Feast repository of the trips project."""
