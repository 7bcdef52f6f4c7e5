"""Photos that are in no collection: described by the kernel that made the gallery, and compared.

reader        a photo's bytes to its embedding
verification  two photos: same, different, or cannot tell
"""
