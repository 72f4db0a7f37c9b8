"""How a fact is learned from single exposures and forgotten after the last one.

References: Chang et al. 2024, arXiv:2406.11813.
"""
