"""Curvature: what a skill depends on, and what an update does to it."""
