"""Local features of a photo, a file each way: pixels and how many -> keypoints and descriptors.

An extractor is called with RGB pixels (H, W, 3) uint8, sides of 16 at least, and a number, and gives at most so many
keypoints (N, 4) float32, x, y, size and angle, with their descriptors (N, 128).

sift            SIFT, by COLMAP
aliked          ALIKED, a learned network, and its weights
aliked_network  that network: maps of a photo, points and descriptors from them
"""
