"""In a process of its own: what it does to the collector lasts."""

import json
import subprocess
import sys

PROGRAM = """
import gc, json, weakref
import penstock.server
from penstock.collector import spare_what_is_loaded

class Cycle:
    def __init__(self):
        self.itself = self

spare_what_is_loaded()
watched = len(gc.get_objects())
late = weakref.ref(Cycle())
gc.collect()
print(json.dumps({"watched": watched, "spared": gc.get_freeze_count(), "late_is_gone": late() is None}))
"""


def test_what_was_loaded_is_spared_and_later_cycles_are_still_found() -> None:
    said = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True).stdout
    counted = json.loads(said)
    assert counted["spared"] > 10_000
    assert counted["watched"] < counted["spared"] / 10
    assert counted["late_is_gone"]
