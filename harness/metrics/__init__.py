"""Scores of images from outputs, one file each. Pure."""
