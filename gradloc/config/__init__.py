"""Recipes, suites and options as checked data. It reads YAML; it opens no corpus and no model."""
