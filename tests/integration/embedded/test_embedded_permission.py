"""Whether the embedded server may be used in this environment."""

from pathlib import Path

import pytest

from asyncq import AsyncQ, embedded
from asyncq.errors import BrokerNotConfigured


@pytest.mark.parametrize(
    "environ",
    [
        {"ASYNCQ_ENV": "production"},
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
        {"K_SERVICE": "shop"},
        {"ECS_CONTAINER_METADATA_URI_V4": "http://169.254.170.2/v4"},
        {"DYNO": "web.1"},
    ],
)
def test_the_embedded_server_is_refused_in_production_unless_allowed(environ):
    with pytest.raises(BrokerNotConfigured, match=next(iter(environ))) as caught:
        embedded.refuse_or_warn(environ, Path("/srv/shop"), "Valkey 9.1.2")
    assert "ASYNCQ_URL=redis://" in str(caught.value)
    assert embedded.refuse_or_warn(environ | {"ASYNCQ_EMBEDDED": "always"}, Path("/srv/shop")) is None


@pytest.mark.parametrize(
    "environ", [{}, {"ASYNCQ_ENV": "development"}, {"DYNO": ""}, {"ASYNCQ_EMBEDDED": "auto"}]
)
def test_outside_production_a_warning_names_the_server_and_the_setting(environ):
    assert embedded.refuse_or_warn(environ, Path("/srv/app"), "Valkey 9.1.2") == (
        "no ASYNCQ_URL, using the embedded Valkey 9.1.2 at /srv/app/.asyncq "
        "(unix socket, this machine only).\n"
        "         Fine for development. For production: ASYNCQ_URL=redis://host:6379/0   "
        "Silence: ASYNCQ_EMBEDDED=always"
    )


def test_the_embedded_server_is_refused_if_the_setting_is_never():
    with pytest.raises(BrokerNotConfigured, match="ASYNCQ_EMBEDDED=never"):
        embedded.refuse_or_warn({"ASYNCQ_EMBEDDED": "never"}, Path("/srv/shop"))


def test_a_misspelt_setting_is_refused():
    with pytest.raises(BrokerNotConfigured, match="Write auto, always or never"):
        embedded.refuse_or_warn({"ASYNCQ_EMBEDDED": "allways"}, Path("/srv/shop"))


@pytest.mark.anyio
async def test_an_app_starts_no_server_where_the_embedded_server_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ASYNCQ_ENV", "production")
    monkeypatch.delenv("ASYNCQ_EMBEDDED", raising=False)
    with pytest.raises(BrokerNotConfigured, match="ASYNCQ_ENV"):
        await AsyncQ(f"embedded://{tmp_path}").open()
    assert list(tmp_path.iterdir()) == [], "neither a server nor its directory"
