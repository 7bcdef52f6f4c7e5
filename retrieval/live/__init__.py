"""The gallery that changes while it is served: what was sealed, and what was added, deleted and put right since.

entries   what is known of an image, what a search finds
filters   which images may answer
columns   what filters ask of a sealed gallery, in arrays
sealed    the gallery as it was indexed
people    who is who, as somebody put it right
rows      an image that was added, as it is written and read
schema    the tables of the store
database  a SQLite file that several processes use at once
store     every change, on disk before it is acknowledged
state     the changes as one view takes them in
view      the gallery as it is now
"""
