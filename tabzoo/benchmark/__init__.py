"""Measurements of backbones and of synthetic anomalies."""
