"""A search as a user's script would run it: ``python search_script.py <directory> <max trials> <seconds a trial>``.

Not a test; test_processes.py starts it, kills it, and starts it again.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import tfqprune as tq
from tfqprune.allocation.judging import Judge

sys.path.insert(0, str(Path(__file__).parent))
from conftest import make_data, make_model

directory, max_trials, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
proxy = Judge.proxy


def slow(self, counts, folder):
    print("begun", folder.name, flush=True)
    time.sleep(seconds)
    return proxy(self, counts, folder)


Judge.proxy = slow
model = make_model()
tuner = tq.RatioTuner(
    model,
    tq.Budget(memory=0.6),
    "latent_l1",
    max_trials,
    directory,
    "search",
    worker_timeout=3.0,
)
print("ready", flush=True)
tuner.search(make_data(model, 1), validation_data=make_data(model, 2))
records, front = tuner.records(), tuner.pareto_front()
print("records", *(record.trial for record in records), flush=True)
print("front", *(record.trial for record in front), flush=True)
assert [plan.notes["trial"] for plan in tuner.get_front_plans()] == [record.trial for record in front]
print("plan", tuner.get_best_plans(1)[0].removed, flush=True)
