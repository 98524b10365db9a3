"""Code of an app around its jobs: middleware, around each enqueue and around each attempt."""
