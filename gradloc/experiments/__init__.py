"""Whole runs: one recipe, a sweep of recipes, a stream of periods."""
