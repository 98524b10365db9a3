"""The process and the machine in which asyncq runs: forks, signals, threads, cores, and the main module."""
