"""100ms's API: requests within bounds, its clock, its tokens, and its answers as typed records."""
