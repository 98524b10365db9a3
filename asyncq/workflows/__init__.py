"""Workflows: calls as data, put together to be made later, one after the other or side by side.

A `Signature` is one call, a `Chain` a line of steps, a `Group` steps side by side. A group in a line is what
Celery calls a chord: the next step waits for all of it and gets the list of its values. `plan` turns any of
them into jobs that wait for each other.
"""

from asyncq.workflows.chains import Chain, chain
from asyncq.workflows.groups import Group, chord, group
from asyncq.workflows.plan import Plan
from asyncq.workflows.signature import Signature
from asyncq.workflows.workflow import Single, Workflow

__all__ = ["Chain", "Group", "Plan", "Signature", "Single", "Workflow", "chain", "chord", "group"]
