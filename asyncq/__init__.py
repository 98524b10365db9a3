"""asyncq: an asyncio-native task runtime with awaitable result handles, on Redis streams."""

from __future__ import annotations
