"""Photographs that are drawn: faces and places, nothing downloaded.

settings    how many are drawn
people      who is drawn: traits of a person, circumstances of a shot
attributes  which of CelebA's attributes that makes true
surface     coordinates on a face, and colours laid over it
features    parts of a face as relief and colour
portrait    one portrait from a person and a shot
faces       a folder of portraits in CelebA's format
renderer    textured solids through a camera
places      a folder of photos of drawn places
"""
