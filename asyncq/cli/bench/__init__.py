"""What `asyncq bench` measures with: load, histogram, and the environment in which the jobs run."""
