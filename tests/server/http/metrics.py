"""Reads metrics with the parsers of Prometheus' own client; prints each sample as `NAME{LABEL=VALUE,...} NUMBER`.

    metrics.py openmetrics|prometheus <METRICS
"""

import sys

import prometheus_client.openmetrics.parser
import prometheus_client.parser

PARSERS = {"openmetrics": prometheus_client.openmetrics.parser, "prometheus": prometheus_client.parser}

families = list(PARSERS[sys.argv[1]].text_string_to_metric_families(sys.stdin.read()))
names = [family.name for family in families]
assert len(names) == len(set(names)), names
for family in families:
    assert family.documentation and family.type != "unknown", family
    for sample in family.samples:
        labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
        print(f"{family.type} {sample.name}{{{labels}}} {float(sample.value)}")
