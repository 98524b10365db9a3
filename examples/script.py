"""A plain script: no event loop, no `with`.

The first call opens the app in a background thread, and the end of the script closes the app. Run it with
`python examples/script.py`.
"""

from concurrent.futures import ThreadPoolExecutor

from tasks import add, app
from worker import background_worker

with background_worker():
    print("one:", add.call_sync(4, 4))

    results = add.map_sync([(1, 2), (3, 4), (5, 6)])
    print("several at once:", results.get_sync(timeout=10))

    print("by name:", app.send_sync("tasks.add", (20, 22)).get_sync(timeout=10))

    with ThreadPoolExecutor(8) as threads:
        print("from 8 threads:", sum(threads.map(lambda number: add.call_sync(number, number), range(100))))

# Output:
# one: 8
# several at once: [3, 7, 11]
# by name: 42
# from 8 threads: 9900
