"""A site of Django whose tasks are jobs of asyncq."""

import os
from pathlib import Path

ALLOWED_HOSTS = ["*"]
BASE_DIR = Path(__file__).parent
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("SITE_DATABASE", BASE_DIR / "site.sqlite3"),
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LOGGING = {  # Django logs each task and each request
    "version": 1,
    "disable_existing_loggers": False,
    "loggers": {"django.tasks": {"level": "ERROR"}, "django.server": {"level": "ERROR"}},
}
INSTALLED_APPS = ["asyncq.integrations.django", "shop"]
ROOT_URLCONF = "shop.urls"
SECRET_KEY = "not a secret"  # noqa: S105
TASKS = {
    "default": {
        "BACKEND": "asyncq.integrations.django.AsyncqBackend",
        "OPTIONS": {"enqueue_on_commit": True},
    }
}
