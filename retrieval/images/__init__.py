"""Pixels: decode, find a face, prepare, augment, batch.

settings     how photos are prepared, faces looked for, pixels changed
pixels       decode, resize, encode
faces        boxes of faces, and crops
preparation  from a photo's bytes to a stored crop, for gallery and query alike
augment      random changes of training images
batches      how many at once, of which shape, and reading ahead
"""
