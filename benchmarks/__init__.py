"""The benchmarks: symguide beside its peers, and the studies whose tables stand in docs/results.

`peers` holds what `symguide bench` measures, `world` one guided run of the scenes world; every other file is a study of
its own, `python benchmarks/NAME.py`, which writes results/NAME.json. render.py puts these into the pages' tables.
"""
