"""A site: the app of asyncq is `django_shop.jobs`, and the tasks of Django 6 are `django_stock.tasks`."""

import os

import django

ALLOWED_HOSTS = ["*"]
ASGI_APPLICATION = "django_sites.asgi"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["SHOP_DATABASE"],
        "OPTIONS": {"timeout": 30},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["asyncq.integrations.django", "django_shop"]
LOGGING = {  # some jobs fail on purpose
    "version": 1,
    "disable_existing_loggers": False,
    "loggers": {
        "asyncq.worker.job_log": {"level": "CRITICAL"},
        "django.dispatch": {"level": "CRITICAL"},
        "django.tasks": {"level": "CRITICAL"},
    },
}
LOGGING_CONFIG = os.environ.get("SHOP_LOGGING", "logging.config.dictConfig")
ROOT_URLCONF = "django_shop.urls"
SECRET_KEY = "not a secret"
USE_TZ = True

if django.VERSION >= (6,):
    INSTALLED_APPS.append("django_stock")
    SERVER = {"url": os.environ["SHOP_SERVER"], "namespace": os.environ["SHOP_NAMESPACE"]}
    BACKEND = "asyncq.integrations.django.AsyncqBackend"
    TASKS = {
        "default": {"BACKEND": BACKEND, "QUEUES": ["default", "media"], "OPTIONS": SERVER},
        "on_commit": {"BACKEND": BACKEND, "OPTIONS": {**SERVER, "enqueue_on_commit": True}},
        "shop": {"BACKEND": BACKEND, "QUEUES": ["shop"], "OPTIONS": {"app": "django_shop.jobs:app"}},
    }
