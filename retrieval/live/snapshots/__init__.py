"""What is served, kept as it was at one moment.

snapshot  taken while the service runs, checked, put back
"""
