"""Continual learning: one stage a month, quarter or year, each from the weights of the last.

Comes in: a recipe. Goes out: stage folders, ``stream.json`` and ``stream.html`` (``gradloc
stream``). It adds no way of training: every stage is an ordinary recipe.
"""
