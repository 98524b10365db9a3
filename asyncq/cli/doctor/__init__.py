"""What `asyncq doctor` looks at: this machine and the app, the server, and the work that lies there."""
