import os

# oneDNN makes a kernel for each shape that it meets and keeps the last 1,024. A network has a hundred layers and photos
# a hundred shapes: each kernel was forgotten before its shape came again. Read at the first convolution, by torch.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")
