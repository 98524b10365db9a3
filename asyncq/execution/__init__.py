"""How the body of a task is run, on a loop, in a thread, or here and now; knows neither Redis nor a
worker.
"""
