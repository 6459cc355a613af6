"""Does steering change the sentiment of film reviews?"""
