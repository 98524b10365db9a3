"""What tests of several folders share: servers, processes, jobs, waits, and the checks around every test."""
