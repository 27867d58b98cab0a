"""Does steering along a direction do what steering along other vectors of its size does not?"""
