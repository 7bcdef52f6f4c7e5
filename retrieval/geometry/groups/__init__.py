"""Groups of linked photos that are mapped together.

keyed      photos and links by group: a group's task reads its own alone
"""
