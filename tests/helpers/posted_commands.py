"""Lists the commands that a session has posted, to see when they are sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

    from asyncq.broker.commands import Commands


def posted_commands(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Returns a list to which each command is added when it is posted."""
    posted: list[tuple[Any, ...]] = []
    post = commands.post

    def post_and_note(shard: Any, command: tuple[Any, ...], *arguments: Any, **options: Any) -> None:
        posted.append(command)
        post(shard, command, *arguments, **options)

    monkeypatch.setattr(commands, "post", post_and_note)
    return posted
