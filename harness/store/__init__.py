"""Files that outlive a run: runs, baselines, history, the content cache."""
