"""Declarations of the trips project: policies."""
