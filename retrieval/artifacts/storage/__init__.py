"""Where things lie, and what to do when a place does not answer.

address   what an address names: a store, a bucket, a path in it, options; opened once a process
failures  whose fault an error is: storage, credentials, a disk, memory; or nobody's but the caller's
patience  the same again after a while, for as long as a job may wait, and then an end in one sentence
"""
