"""Directions in activation space: captured, measured, steered along, compared with chance, carried to other models."""
