"""One pytest night: its plan, its cases, its session."""
