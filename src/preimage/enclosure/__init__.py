"""Boxes that hold every code of an observation, proven by multipliers of linear programs."""
