"""Pixels: decode, find a face, prepare, augment, batch.

settings     how photos are prepared, faces looked for, pixels changed
native       one photo's time in native code, and where tests poison it
pixels       decode, resize, encode
boxes        how far two are the same, squares around them, what is in them
faces        the detector, and which face; detectors/ has a file for each
alignment    five points of a face to the template that networks share
quality      how good a face is to compare by
preparation  from a photo's bytes to a stored crop, for gallery and query alike
augment      random changes of training images
likeness     whether two stored images are one picture
batches      how many at once, of which shape, and reading ahead
"""
