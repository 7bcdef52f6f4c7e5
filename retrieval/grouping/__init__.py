"""People, or places, that nobody named: photos that belong together, found by their embeddings alone.

settings     how alike, how many neighbours, what is a duplicate
threshold    how alike photos must be, and who says so
links        the nearest of every photo, found by the index, part after part
merging      linked photos become groups, by the mean of all their pairs
numbering    groups keep their numbers when photos are added
duplicates   the same picture twice: resized, recompressed, cropped
people       the tables, their books and their seal
copies       what is there twice, read again
"""
