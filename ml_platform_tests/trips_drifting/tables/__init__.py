"""Declarations of the trips project: tables."""
