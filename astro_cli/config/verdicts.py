"""The verdicts of a comparison that people write: good, same or bad (GSB)."""

VERDICTS = {"g": "good", "good": "good", "s": "same", "same": "same", "b": "bad", "bad": "bad"}
ALLOWED = "G, S, B, good, same, bad"
