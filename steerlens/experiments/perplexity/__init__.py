"""Does steering make texts on the topic likelier, and leave others as likely as they were?"""
