"""Options: one row each; what a user may set, where, and how it is typed again."""
