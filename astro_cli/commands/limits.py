"""The largest numbers that options take: more is a slip of the keyboard, and would fill memory before it is noticed."""

MOST_PROMPTS = 10**6
MOST_FRAMES = 10**8  # eleven days at 100 a second
MOST_SECONDS = 10**6
MOST_VIDEOS = 10**6  # at once
MOST_JOBS = 1024
