"""What connects asyncq with libraries that it does not need: one public module and one extra for each.

A module here imports its library. No other package imports these modules, except the command line for
`--metrics-port`.
"""
