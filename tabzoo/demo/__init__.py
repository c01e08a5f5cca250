"""A page in the browser: a few good photos, one to inspect, and the maps of several backbones side by side."""
