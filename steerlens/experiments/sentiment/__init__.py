"""Does steering turn the sentiment of film reviews?"""
