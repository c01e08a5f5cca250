"""The way of weights to the user: fetched, checked, kept on this machine, loaded. Command line: `python -m tabzoo.hub`."""
