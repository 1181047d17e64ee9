"""What `symguide bench` measures: the look-ahead's gradient beside others' ways to it, in one process.

`gradients` compares gradients, `memory` what they hold, `quality` the samples that they guide. A way to such a gradient
is a class in one of the files here, and ways.py lists them all.
"""
