"""Schedules: tasks that run every so often, at the times of a cron text, or once at a time."""
