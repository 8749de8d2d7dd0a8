"""Tasks: what the output of a model means, and the metric that scores it."""
