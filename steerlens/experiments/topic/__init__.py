"""Topic steering by layer: how often do completions talk about the topic?"""
