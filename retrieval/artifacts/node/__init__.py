"""What a node keeps on its own disk of what lies elsewhere.

cache    copies, one a node, made once, checked, and let go oldest first
triple   the published model and index
scratch  tables that are sorted and joined on its disk
rows     what is known of every row of an index, as arrays that are mapped
"""
