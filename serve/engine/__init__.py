"""What answers queries inside a replica: a model, an index and a gallery that belong together.

version    one of them, loaded: photo in, neighbours out
clock      where the time of one query goes
filtering  a filter and an image in the words of the API
query      what a search was told, and its answer
verifying  results whose points fit one geometry with the query's come first
wording    what was found, in the words of the API
selftest   what a version must show before it answers anybody
loading    from what was published to a version that is fit to answer
versions   which version answers now, and who still uses another
watch      follows what is published
candidate  another version that is asked too, and compared
groups     people and copies, as they are now
"""
