"""Memory plans: how many network graphs of a look-ahead are kept for its sweep.

A kept graph saves one forward call and costs the bytes that one call's backward needs; the gradient is the same.
"""

import torch

from symguide.errors import ConfigError
from symguide.meter import free_bytes, parse_bytes

Memory = str | int


def check_memory(memory: Memory) -> Memory:
    """The plan itself; ConfigError if it is none.

    >>> check_memory("auto:2GB")
    'auto:2GB'
    """
    if isinstance(memory, int) and not isinstance(memory, bool) and memory >= 0:
        return memory
    if memory in ("minimal", "fast", "auto"):
        return memory
    if isinstance(memory, str) and memory.startswith("auto:") and parse_bytes(memory[5:]) is not None:
        return memory
    raise ConfigError(f"memory is 'minimal', 'fast', 'auto', 'auto:2GB' or a number of graphs to keep, not {memory!r}")


def graphs_to_keep(memory: Memory, n: int, graph_bytes: int | None, device: torch.device) -> int | None:
    """How many of n graphs a plan keeps; None for "auto" while nobody knows what a graph weighs.

    "auto" keeps as many as fit in half of the device's free memory, or in its budget, and at least one.

    >>> cpu = torch.device("cpu")
    >>> [graphs_to_keep(plan, 8, 10**6, cpu) for plan in ("minimal", "fast", 3, "auto:2.5MB")]
    [1, 8, 3, 2]
    """
    check_memory(memory)
    if isinstance(memory, int):
        return min(memory, n)
    if memory in ("minimal", "fast"):
        return 1 if memory == "minimal" else n
    if graph_bytes is None:
        return None
    budget = parse_bytes(memory[5:]) if memory.startswith("auto:") else free_bytes(device) // 2
    assert budget is not None
    return min(max(budget // max(graph_bytes, 1), 1), n)
