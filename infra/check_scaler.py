"""Whether the function that counts ECS workers counts right: its code out of worker-ecs.yaml, against an API and a stubbed AWS."""

import contextlib
import http.server
import io
import json
import os
import pathlib
import threading
from unittest.mock import patch

import boto3
from botocore.stub import Stubber
from samcli.yamlhelper import yaml_parse

TEMPLATE = yaml_parse((pathlib.Path(__file__).parent / "worker-ecs.yaml").read_text())
CODE = TEMPLATE["Resources"]["Scaler"]["Properties"]["Code"]["ZipFile"]
# CloudFormation takes no more in a template.
MOST_BYTES = 4096


class Api(http.server.BaseHTTPRequestHandler):
    """`GET /queues` in two pages; the queue is on the second, if it is there."""

    queue = None

    def do_GET(self):
        assert self.headers["authorization"] == "Bearer jp_worker_x", self.headers
        first = {"items": [{"name": "another", "waiting": 99, "running": 9}], "next_cursor": "a b&c"}
        second = {"items": [self.queue] if self.queue else [], "next_cursor": None}
        page = {"/queues?limit=1000": first, "/queues?limit=1000&cursor=a%20b%26c": second}[self.path]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(page).encode())

    def log_message(self, *_):
        pass


def told(url, desired, shrink_while_busy, **queue):
    """What the function tells CloudWatch of this queue and this many workers."""
    Api.queue = {"name": "images", **queue} if queue else None
    environment = {
        "JOBPLANE_URL": url, "TOKEN_SECRET": "arn", "CELL": "main", "QUEUE": "images", "FLEET": "fleet", "CLUSTER": "c",
        "SERVICE": "s", "SLOTS": "4", "MIN_WORKERS": "1", "MAX_WORKERS": "16", "SHRINK_WHILE_BUSY": shrink_while_busy,
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
    }
    with patch.dict(os.environ, environment), contextlib.redirect_stdout(io.StringIO()) as out:
        function = {}
        exec(compile(CODE, "Scaler", "exec"), function)
        # The stubs know the service's own model: a field that it does not have is an error.
        with Stubber(function["secrets"]) as secrets, Stubber(function["ecs"]) as ecs:
            secrets.add_response("get_secret_value", {"SecretString": "jp_worker_x\n"}, {"SecretId": "arn"})
            services = {"services": [{"desiredCount": desired}]}
            ecs.add_response("describe_services", services, {"cluster": "c", "services": ["s"]})
            function["handler"]({}, None)
    line = json.loads(out.getvalue())
    for metrics in line["_aws"]["CloudWatchMetrics"]:
        assert metrics["Namespace"] == "jobplane"
        for name in [*metrics["Dimensions"][0], *(it["Name"] for it in metrics["Metrics"])]:
            assert name in line, name
    return line


def named(line):
    """Each metric with its dimensions."""
    for metrics in line["_aws"]["CloudWatchMetrics"]:
        for metric in metrics["Metrics"]:
            yield metric["Name"], tuple(metrics["Dimensions"][0])


assert len(CODE) <= MOST_BYTES, f"the code has {len(CODE)} bytes"
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"

for desired, shrink, waiting, running, lacking, surplus in [
    (0, "false", 0, 0, 1, 0),  # never below the least
    (1, "false", 0, 0, 0, 0),
    (1, "false", 4, 0, 0, 0),
    (1, "false", 5, 0, 1, 0),
    (1, "false", 10_000, 0, 15, 0),  # never above the most
    (3, "false", 1, 4, 0, 0),  # one too many, but something runs
    (3, "true", 1, 4, 0, 1),
    (3, "false", 0, 0, 0, 2),
]:
    line = told(url, desired, shrink, waiting=waiting, running=running, oldest_waiting_seconds=1.5)
    found = (line["LackingWorkers"], line["SurplusWorkers"])
    assert found == (lacking, surplus), (desired, shrink, waiting, running, found)
    assert (line["Waiting"], line["Running"], line["OldestWaitingSeconds"]) == (waiting, running, 1.5)
assert told(url, 1, "false", waiting=0, running=0, oldest_waiting_seconds=None)["OldestWaitingSeconds"] == 0
# A queue that no job has named yet.
line = told(url, 1, "false")
assert (line["Waiting"], line["LackingWorkers"], line["SurplusWorkers"]) == (0, 0, 0)

# The alarms look at what is told, under the same dimensions.
known = dict(named(line))
for name, resource in TEMPLATE["Resources"].items():
    if resource["Type"] == "AWS::CloudWatch::Alarm":
        alarm = resource["Properties"]
        dimensions = tuple(it["Name"] for it in alarm["Dimensions"])
        assert known.get(alarm["MetricName"]) == dimensions, f"{name} looks at {alarm['MetricName']} by {dimensions}"
server.shutdown()
