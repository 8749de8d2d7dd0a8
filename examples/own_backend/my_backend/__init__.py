"""A backend of one's own."""
