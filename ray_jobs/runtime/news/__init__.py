"""What is heard of work while it goes on, by people and by machines.

progress   how far work is: workers tell, the driver shows
screen     lines, and a live bar below them
quiet      what is printed and what is not; who sets handlers
events     what happens, for machines: lines of JSON
meters     figures at Ray's Prometheus endpoint
pulse      a job's sign of life, beside the folder it makes
"""
