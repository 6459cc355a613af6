"""Does steering make completions of provoking prompts less toxic?"""
