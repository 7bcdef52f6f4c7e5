"""Trunks from other libraries than torchvision, a file each.

timm_trunks    timm:NAME, with timm's weights
"""
