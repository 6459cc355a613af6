"""Does steering make text on the topic more likely, and leave other text as likely as it was?"""
