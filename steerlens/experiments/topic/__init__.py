"""Topic steering by layer: how often do completions speak of the topic?"""
