"""A source by its layout, a file each.

celeba  the published lists of CelebA
table   CSV, TSV or Parquet with a row a photo
tree    folders, which may be labels
"""
