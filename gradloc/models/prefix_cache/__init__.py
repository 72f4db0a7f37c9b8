"""Hidden states that enter the lowest trained block, kept on disk.

While a plan is static, the blocks below its lowest trained one compute the same for a sequence in
every epoch. They are computed once, and later passes start above them.
"""

from gradloc.models.prefix_cache.cache import CacheConfig, PrefixCache

__all__ = ["CacheConfig", "PrefixCache"]
