"""What all jobs share.

command    a job as a command: settings, help, mistakes in one sentence
detector   which detector looks for faces, found once
inputs     what a command names must be there
alone      a job as the only writer of the folder that it makes
places     stores that answer, paths that every node sees
session    the cluster, and work as one task
limits     how long, how often and how much, before a job stops trying
placement  what work needs of a machine, and waiting for one
parts      work in numbered parts, through whatever ends a worker
crew       who does them: tasks and actors of Ray
worker     what a worker makes of one
inquest    which photo of a part ends its worker
witness    the process that tries them, and may die
rank       this process among those that train
progress   how far work is: workers tell, the driver shows
screen     lines, and a live bar below them
events     what happens, for machines: lines of JSON
meters     figures at Ray's Prometheus endpoint
quiet      what is printed and what is not; who sets handlers
pulse      a job's sign of life, beside the folder it makes
survey     what lies in a workspace, and in which state
road       steps of a pipeline: where each lies, whether it is done
summary    what a pipeline made, and what to do with it
runs       a run of MLflow
telling    what MLflow is told of a run
outbox     what it could not be told yet
registry   which bundle is the champion
store      where MLflow keeps it all
"""
