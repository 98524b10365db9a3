"""Signs and encrypts what asyncq keeps at the server, and refuses what nobody has signed. Only the setting
`secrets` needs this package: without it nothing here is imported.
"""
