"""Looking after a running system: `app.control`."""
