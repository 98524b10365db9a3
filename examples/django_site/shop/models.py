"""What the site sells."""

from django.db import models


class Order(models.Model):
    """An order of a customer."""

    name = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.name
