"""The command line of the site, as `django-admin startproject` writes it."""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_settings")
    execute_from_command_line(sys.argv)
