"""Shipped projects: declarations only."""
