"""Engines with a fault."""
