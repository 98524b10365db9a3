"""Runs tests with signed or encrypted messages that were not written for that."""

from __future__ import annotations

import os

SECRET = "the secret of a whole run of tests"


def of_secrets() -> dict[str, str]:
    """Returns the settings of secrets for every process of a test, from `TEST_SECRETS`: empty for none,
    `signed` or `encrypted`.

    Raises:
        ValueError: it is something else.
    """
    wanted = os.environ.get("TEST_SECRETS", "")
    if wanted not in {"", "signed", "encrypted"}:
        raise ValueError(f"TEST_SECRETS={wanted}: write signed or encrypted")
    if not wanted:
        return {}
    return {"ASYNCQ_SECRETS": SECRET, "ASYNCQ_ENCRYPT": "1" if wanted == "encrypted" else "0"}
