"""The protocol as a state machine, and an explorer of all its states."""
