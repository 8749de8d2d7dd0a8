"""What a fire drill plants: an extension folder, never on a run's path but in a drill."""
