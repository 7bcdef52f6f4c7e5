"""A source by its layout, a file each: whether a folder fits it, and how it is read. `listing` has their table.

celeba       the published lists of CelebA
table        CSV, TSV or Parquet with a row a photo
webdataset   tars with the photos in them
image_table  Parquet with the photos in it
tree         folders, which may be labels
"""
