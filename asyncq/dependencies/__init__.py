"""Dependencies of tasks: parameters that the worker fills, with `Depends` as their default."""
