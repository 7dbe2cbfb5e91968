"""When things happen, in named words."""
