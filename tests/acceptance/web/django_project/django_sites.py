"""The site for servers of ASGI and of WSGI."""

import os

from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_settings")
asgi = get_asgi_application()
wsgi = get_wsgi_application()
