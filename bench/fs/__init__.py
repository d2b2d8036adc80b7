"""The model filesystem beside its peers: one machine, one run, in turns. `python -m bench.fs --help` says more.

Every figure is the median of its rounds; before each round the caches are dropped. The order of the peers turns round
every time, so what else the machine does meets all of them. Speeds of two runs do not compare, ratios within one do.
"""
