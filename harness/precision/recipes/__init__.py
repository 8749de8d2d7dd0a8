"""Recipes: each file lists its own in RECIPES."""
