"""What answers queries inside a replica: a model, an index and a gallery that belong together.

version   one of them, loaded: photo in, neighbours out
sealed    the gallery as it was indexed
query     what a search was told, and its answer
versions  which version answers now
"""
