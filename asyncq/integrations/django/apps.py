"""The app of Django that this package is: `INSTALLED_APPS = [..., "asyncq.integrations.django"]`."""

from django.apps import AppConfig


class AsyncqConfig(AppConfig):  # type: ignore[misc]  # it is Any: Django has no types
    """Names the app. It has no models: jobs and results are in Redis."""

    name = "asyncq.integrations.django"
    label = "asyncq"  # the default would be `django`
    verbose_name = "asyncq"
