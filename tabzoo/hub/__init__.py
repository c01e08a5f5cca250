"""How weights reach a user: fetched, verified, installed, loaded. Command line: `python -m tabzoo.hub`."""
