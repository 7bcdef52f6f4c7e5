"""What MLflow is told, and which bundle is the champion.

runs       a run of MLflow
telling    what MLflow is told of a run
outbox     what it could not be told yet
registry   which bundle is the champion
store      where MLflow keeps it all
"""
