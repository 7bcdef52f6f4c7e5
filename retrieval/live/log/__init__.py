"""Changes of a gallery that several hosts serve: a log of small objects that all of them agree on.

operations  what a change does to the tables
coding      a group of changes as the bytes of an object
objects     where they lie; an object is put only where none is
turns       when a host may write, so that no other is kept out
shared      the tables of one host, kept as the log says
"""
