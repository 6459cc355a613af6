"""What does steering cost in time?"""
