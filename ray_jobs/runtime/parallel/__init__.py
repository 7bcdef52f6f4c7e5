"""Work in parts all over the cluster, through whatever ends a worker.

limits     how long, how often and how much, before a job stops trying
placement  what work needs of a machine, and waiting for one
parts      work in numbered parts
crew       who does them: tasks and actors of Ray
worker     what a worker makes of one
inquest    which photo of a part ends its worker
witness    the process that tries them, and may die
fitting    a training by Ray Train, to its end
sight      paths that a worker must see
spread     one function of many pieces, from inside a task
training   workers that train together, and the photo that ends them
"""
