"""Whole runs: one recipe, a sweep of recipes, continual training over periods."""
