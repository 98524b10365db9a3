"""The broker: the only package that knows Redis. All of it but `Beating` runs on the loop of a session."""
