"""Positives m1, m2 and m3 equal slow choices by hand, and the tables come back as they were written."""

from __future__ import annotations
