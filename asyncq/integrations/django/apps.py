"""The app of Django that this package is: `INSTALLED_APPS = [..., "asyncq.integrations.django"]`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    AppConfig = object  # Django has no types
else:
    from django.apps import AppConfig


class AsyncqConfig(AppConfig):
    """Names the app. It has no models: jobs and results are in Redis."""

    name = "asyncq.integrations.django"
    label = "asyncq"  # the default would be `django`
    verbose_name = "asyncq"
