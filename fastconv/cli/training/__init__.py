"""What ``fastconv train`` is made of: its set-up, and the page and figures of its report."""
