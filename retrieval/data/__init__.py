"""From a source of photographs to a collection.

settings       layouts, and how photos are divided
source         photos of a folder or bucket, found by walking it
listed         photos and files of a source, sorted on disk
listing        a source read by its layout; layouts/ has a file for each
splits         who trains, validates, asks and answers
catalog        the plan of a collection and its catalogue
reading        the bytes of photos, some time before their turn
ingestion      one part of a collection
recheck        its stored photos, decoded once more
plain_pickle   other people's pickles, with nothing in them run
retrieval_sfm  the published retrieval-SfM databases
"""
