"""When a new model takes the place of the best one so far."""

from __future__ import annotations

from collections.abc import Mapping


def beats(new: Mapping[str, str], old: Mapping[str, str]) -> tuple[bool, str]:
    """Whether `new` is better than `old`, and why in words. Not if they do not compare, and not if they are equal.

    Args:
        new, old: what each was measured by, as text: `metric` (its name), `value` (higher is better) and `measured_on`
            (fingerprint of the data). A value on easy photos says nothing about one on hard photos.

    Example:
        >>> measured = {"metric": "val/mAP", "measured_on": "c0ffee"}
        >>> beats({**measured, "value": "0.61"}, {**measured, "value": "0.6"})
        (True, 'val/mAP 0.6100 beats 0.6000')
    """
    if "value" not in old:
        return False, "it has no recorded metric to beat; promote a version by hand"
    if (old["metric"], old["measured_on"]) != (new["metric"], new["measured_on"]):
        return False, (
            f"it was measured by {old['metric']} on data {old['measured_on'][:12]}, this one by {new['metric']} on "
            f"{new['measured_on'][:12]}; they do not compare, promote one by hand"
        )
    better = float(new["value"]) > float(old["value"])
    verb = "beats" if better else "does not beat"
    return better, f"{new['metric']} {float(new['value']):.4f} {verb} {float(old['value']):.4f}"
