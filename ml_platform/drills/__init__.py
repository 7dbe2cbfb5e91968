"""Drills: what the platform is for, tried on a copy of its state with things that are wrong on purpose."""
