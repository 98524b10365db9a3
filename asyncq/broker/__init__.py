"""The broker: the only room that knows Redis."""
