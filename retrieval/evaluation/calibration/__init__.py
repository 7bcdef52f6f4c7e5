"""From labelled photos that were not trained on to what a score means.

pairs   pairs of photos drawn by people
rates   thresholds at false-accept rates, with intervals
curve   score to probability
fit     all of it, for one system
"""
