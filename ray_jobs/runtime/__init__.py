"""What all jobs share.

command    a job as a command: settings, help, mistakes in one sentence
detector   which detector looks for faces, found once
inputs     what a command names must be there
alone      a job as the only writer of the folder that it makes
places     stores that answer, paths that every node sees
session    the cluster, and work as one task
rank       this process among those that train
road       steps of a pipeline: where each lies, whether it is done
survey     what lies in a workspace, and in which state
summary    what a pipeline made, and what to do with it

Its rooms: `parallel` for work in parts, `news` of it, and MLflow's `tracking`.
"""
