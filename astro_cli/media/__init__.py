"""Video files: their frames one after the other, and a user's clips with their prompts. Free of torch."""
