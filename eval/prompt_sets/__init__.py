"""Prompt sets of the benchmarks, by name or from a file.

Third-party lists are read, never shipped.
"""

from eval.prompt_sets.base import Prompt, PromptSet, PromptSetError, text_id
from eval.prompt_sets.catalog import NAMES, prompt_set

__all__ = ["NAMES", "Prompt", "PromptSet", "PromptSetError", "prompt_set", "text_id"]
