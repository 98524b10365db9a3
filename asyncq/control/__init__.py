"""`app.control`: what an operator does with a running system: look at queues, workers and jobs, pause and
purge queues, end jobs and workers, and send dead letters again. `control.Control` is what users see; each
noun has a module of its own, and `broker` has the calls to the server.
"""
