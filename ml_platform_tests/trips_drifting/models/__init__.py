"""Declarations of the trips project: models."""
