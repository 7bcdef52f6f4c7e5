"""How a file comes to lie on storage: whole, once, and known by its hash. All files of all steps are written here.

failpoint  a counted failure in the seam, for tests, switched on by an environment variable
seam       the one place that writes: whole first, then published by one step, hashed on the way
done       done-markers: what a resume reads instead of the file
owner      one writer a folder; what a dead one left is taken away
"""
