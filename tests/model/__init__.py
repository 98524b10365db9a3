"""A model of the protocol as a state machine, and an explorer that visits all of its states.

`rules` are the protocol's rules as switches, `world` is one state, `scripts` are the Lua scripts, and
`moves`, `workers`, `observers` and `forwarding` are the steps from state to state. `questions` checks each
step, and `explorer` visits all states. `setup`, `scenarios` and `mutants` say what is explored. `permits` is
a small model of its own. Nothing here uses asyncq or a server.
"""
