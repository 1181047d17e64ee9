"""What `symguide demo` shows: tasks of the embedded worlds, by four methods from the same noise."""
