"""Declarations of the trips project: services."""
