"""asyncq in a site of Django: a backend for its tasks (`django.tasks`), and `manage.py asyncq_worker`.

`pip install 'asyncq[django]'`. The package is an app of Django, which brings the command. The backend needs
Django 6 or later. Everything else works with Django 5, too: there, tasks are those of an `AsyncQ` app.

Example:
    ```python
    INSTALLED_APPS = [..., "asyncq.integrations.django"]
    TASKS = {"default": {"BACKEND": "asyncq.integrations.django.AsyncqBackend"}}
    ```
"""

from asyncq.integrations.extras import needs_extra

with needs_extra("django"):
    import django as _django  # noqa: F401  only whether it is there

from asyncq.integrations.django.tasks_backend import AsyncqBackend

__all__ = ["AsyncqBackend"]
