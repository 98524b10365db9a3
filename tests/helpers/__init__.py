"""Code that tests of several folders share: servers, processes, jobs, waits, and checks around each test.

One purpose a module. Modules that end with `bodies` or `jobs` hold tasks; processes import them by name.
"""
