"""An index that is too large for one process: its shards are held in parts, each by a process of its own.

messages  what passes between a replica and the parts
part      one part: some of the shards, of every version that is asked for
fanout    all parts, as a replica sees them: one shard, whole or not at all
"""
