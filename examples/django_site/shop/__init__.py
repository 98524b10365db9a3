"""The shop, as an app of Django."""
