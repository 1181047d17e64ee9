"""Benchmarks that run from the command line: symguide beside others' ways to the same thing, in one process.

`gradients` compares gradients of a look-ahead, `memory` what they hold, `quality` the samples that they guide. A way to
such a gradient is a class of one of the files here, and ways.py lists them all.
"""
