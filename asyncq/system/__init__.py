"""The process and the machine that asyncq runs in: forks, signals, threads, cores, and the main module."""
