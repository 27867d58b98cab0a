"""Directions in activation space, from files to run folders: found, steered along, carried to other models."""
