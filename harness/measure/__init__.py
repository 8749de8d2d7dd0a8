"""Measuring: scores, times, invariance, drift. Runs engines; decides nothing."""
