"""A container of dishka gives the tasks what they need: one scope of it for each attempt of a job.

The worker opens the container in its lifespan. A dependency opens a scope of it, and `from_dishka` asks the
scope for an object of a class. Run it with `python examples/dishka_app.py`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from dishka import AsyncContainer, Provider, Scope, make_async_container, provide

import asyncq
from asyncq import AsyncQ, Context, Depends, Worker

T = TypeVar("T")


class Pool:
    """Stands for a pool of connections to a database."""

    def __init__(self) -> None:
        self.orders = {"ada": 3, "bob": 1}


class Session:
    """Stands for a session with the database."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def count_orders(self, user: str) -> int:
        """Returns how many orders a user has."""
        return self._pool.orders[user]


class Database(Provider):
    """Says how the container makes the two."""

    @provide(scope=Scope.APP)
    async def pool(self) -> AsyncIterator[Pool]:
        """Opens the pool, once for each worker."""
        print("the pool is open")
        yield Pool()
        print("the pool is closed")

    @provide(scope=Scope.REQUEST)
    async def session(self, pool: Pool) -> AsyncIterator[Session]:
        """Opens a session, once for each attempt of a job."""
        yield Session(pool)
        print("a session is closed")


@asynccontextmanager
async def lifespan(_app: AsyncQ) -> AsyncIterator[AsyncContainer]:
    container = make_async_container(Database())
    yield container
    await container.close()


async def request_scope(job: Context = Depends(asyncq.current)) -> AsyncIterator[AsyncContainer]:
    async with job.state() as container:
        yield container


def from_dishka(kind: type[T]) -> T:
    async def get(container: AsyncContainer = Depends(request_scope)) -> T:
        return await container.get(kind)

    return Depends(get)


app = AsyncQ(lifespan=lifespan)


@app.task
async def count_orders(user: str, session: Session = from_dishka(Session)) -> int:  # noqa: B008
    return await session.count_orders(user)


async def main() -> None:
    async with app, Worker(app):
        for user in ("ada", "bob"):
            print(user, "has", await count_orders.call(user))


if __name__ == "__main__":
    asyncio.run(main())

# Output:
# the pool is open
# a session is closed
# ada has 3
# a session is closed
# bob has 1
# the pool is closed
