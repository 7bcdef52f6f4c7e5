"""Groups of linked photos that are mapped together.

splitting  which photos are a group; those too large are split, into groups that share photos
keyed      photos and links by group: a group's task reads its own alone
joining    models of groups that share photos, made one
"""
