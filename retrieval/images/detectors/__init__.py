"""Who finds faces: a file for each detector.

face     a face that was found, each once, sizes that are searched
haar     OpenCV's cascades: no file is needed, boxes only
yunet    a small network: boxes, five points, confidence
"""
