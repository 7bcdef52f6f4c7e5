"""Who asks whom, and the figures of a system or a benchmark.

tasks             queries, gallery, and who is compared with whom
metrics           recall, mAP, precision, ranks
attributes        agreement of attributes, with baselines and a ceiling
clustering        a grouping that nobody labelled, with labels looked at afterwards
settings          what is compared
systems           one system measured on a task
ground_truth      who matches whom in a benchmark
revisited         ROxford, RParis, Oxford, Paris: protocols and scores
benchmark_source  a benchmark's photos as a source
variants          a benchmark scored as it is, augmented, expanded
"""
