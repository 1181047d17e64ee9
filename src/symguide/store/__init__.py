"""A run's samples on disk: shards as they are drawn, finished pictures and arrays, and digests of what made them."""
