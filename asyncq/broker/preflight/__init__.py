"""Checks a server before it is used: whether it may lose jobs, and what its user may do."""
