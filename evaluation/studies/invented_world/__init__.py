"""Invented, dated facts and real currency changes, as a corpus of any seed, cut-off and size.

``source: "evaluation.studies.invented_world:read_world"`` in a recipe that runs in a clone's root;
``write_world.py`` writes it as files, such as those of the recipe ``quickstart``.
"""

from .reader import read_world

__all__ = ["read_world"]
