"""Continual learning: one stage a month, quarter or year, each from the weights of the last."""
