"""Conversions with a fault."""
