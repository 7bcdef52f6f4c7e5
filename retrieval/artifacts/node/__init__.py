"""What a node keeps on its own disk of what lies elsewhere.

cache   copies, one a node, made once, checked, and let go oldest first
triple  the published model and index
"""
