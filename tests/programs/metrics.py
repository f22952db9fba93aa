"""Reads metrics with the strict parser of Prometheus' own Python client: `metrics.py URL`.

Prints `[{"name", "type", "unit", "help", "samples": [[name, labels, value]]}]`, and fails on what is no OpenMetrics.
"""

import json
import sys

import httpx
from prometheus_client.openmetrics.parser import text_string_to_metric_families

answer = httpx.get(sys.argv[1], timeout=20)
answer.raise_for_status()
kind = answer.headers["content-type"]
if kind != "application/openmetrics-text; version=1.0.0; charset=utf-8":
    sys.exit(kind)
print(
    json.dumps(
        [
            {
                "name": family.name,
                "type": family.type,
                "unit": family.unit,
                "help": family.documentation,
                "samples": [[sample.name, sample.labels, sample.value] for sample in family.samples],
            }
            for family in text_string_to_metric_families(answer.text)
        ]
    )
)
