"""Both ends of the wire: what the parent asks, the process that is asked, and what answers in it."""
