"""What a caller has in hand: handles of one job and of many, and what they show, wait for and follow."""
