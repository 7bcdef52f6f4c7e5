"""Photos of strangers, looked at in processes that can be killed.

messages   what is asked of a photo and what was seen in it
limits     what is refused before a pixel is decoded
looking    decode, find, cut: the work itself
framing    messages on a socket between the service and one of the processes
channel    the service's end of that socket
worker     such a process
handle     the service's end of one
pool       several of them; those that die or hang are replaced
"""
