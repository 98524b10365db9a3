"""Trials that kill, cut, freeze and starve real processes, and judge what came of each job."""
