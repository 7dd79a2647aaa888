#!/usr/bin/env python3
"""A jobplane worker with Python's standard library alone: docs/worker-protocol.md as code. Jobs are commands.

JOBPLANE_URL=http://127.0.0.1:8080 JOBPLANE_WORKER_TOKEN=jp_worker_… python3 worker.py
"""
import http.client, itertools, json, os, random, signal, subprocess, tempfile, threading, time, uuid
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import urlsplit

setting = lambda name, unless=None: os.environ.get(f"JOBPLANE_{name}", unless)
URL, QUEUES, SLOTS = urlsplit(setting("URL")), setting("QUEUES", "default").split(","), int(setting("CONCURRENCY", 4))
DRAIN, GRACE = float(setting("DRAIN_SECONDS", 30)), float(setting("KILL_GRACE_SECONDS", 10))
HEADERS = {"Authorization": f"Bearer {setting('WORKER_TOKEN')}", "Content-Type": "application/json"}
held, sigterms = set(), []  # attempts that have a slot and a lease to keep; when the signals came
beat_seconds, last_beat, WORKER = 20.0, 0.0, f"python-{os.getpid()}"


def call(method, path, body, unless=lambda: False):
    """A call's status and answer. It is repeated until there is one, or none is wanted any more: then (0, {})."""
    connect = http.client.HTTPSConnection if URL.scheme == "https" else http.client.HTTPConnection
    for tries in itertools.count():
        wait = random.uniform(0, min(10, 0.2 * 2 ** min(tries, 10)))
        try:
            connection = connect(URL.netloc, timeout=10)
            connection.request(method, f"{URL.path}/internal/executions{path}", json.dumps(body), HEADERS)
            response = connection.getresponse()
            wait, answer = max(wait, float(response.headers.get("Retry-After", 0))), json.load(response)
            if response.status < 500 and response.status not in (401, 403, 429):
                return response.status, answer
        except (OSError, http.client.HTTPException, ValueError) as error:  # no answer, or half of one
            answer = repr(error)
        print(method, path, answer, flush=True)
        if unless():
            return 0, {}
        time.sleep(wait)


def pause(seconds, unless):
    until = time.monotonic() + seconds
    while time.monotonic() < until and not unless():
        time.sleep(0.02)


class Attempt(threading.Thread):
    def __init__(self, leased, lease_id, why):
        super().__init__(daemon=True)
        self.leased, self.lease_id, self.next_seq = leased, lease_id, 0
        self.why = why  # it is to end: "cancelled", "timed_out", "released"; or "lost", of which nothing is reported

    def call(self, method, what, body):
        path, body = f"/{self.leased['execution_id']}/{what}", {"lease_id": self.lease_id, **body}
        return call(method, path, body, unless=lambda: self.why == "lost" or self not in held)

    def run(self):
        try:
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
                ending = {"outcome": self.why} if self.why else self.job(Path(place))
        except ValueError as error:
            ending = {"outcome": "failed", "error": f"result.json: {error}", "retryable": False}
        except Exception as error:  # no such program, a full disk: another worker may do better
            ending = {"outcome": "failed", "error": f"cannot be run: {error}"}
        status, answer = self.call("PUT", "result", ending) if self.why != "lost" else (0, {})
        if status in (400, 413, 422):  # what it says is refused: say that
            error = f"the result was refused: {answer['detail']}"
            self.call("PUT", "result", {"outcome": "failed", "error": error, "retryable": False})
        held.discard(self)

    def job(self, place):
        """The job to its end: its own, that of its time, or the one that it is told."""
        (place / "input.json").write_text(json.dumps(self.leased["input"]))
        (place / "result.json").touch()
        env = {"PATH": os.environ["PATH"], **self.leased["job"]["env"], "JOBPLANE_INPUT": f"{place}/input.json",
               "JOBPLANE_OUTPUT_DIR": f"{place}", "JOBPLANE_EXECUTION_ID": self.leased["execution_id"],
               "JOBPLANE_ATTEMPT": str(self.leased["attempt"])}
        process = subprocess.Popen(self.leased["job"]["command"], cwd=place, env=env, start_new_session=True,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        log = threading.Thread(target=self.send_log, args=[process.stdout], daemon=True)
        log.start()
        # Whether it has ended. It is not reaped yet, so that its number stays its group's.
        ended = lambda: os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        pause(self.leased["timeout_seconds"], unless=lambda: self.why or ended())
        if not ended():
            self.why = self.why or "timed_out"
            os.killpg(process.pid, signal.SIGTERM)
            pause(GRACE, unless=lambda: self.why == "lost" or ended())
        os.killpg(process.pid, signal.SIGKILL)  # and what it has left behind
        log.join(10)
        code = process.wait()
        code = code if code >= 0 else 128 - code  # as a shell puts the signal that ended it
        if self.why or code:  # one that was told to end has not done what it should, however it ended
            return {"outcome": self.why or "failed", "error": f"exit code {code}", "exit_code": code}
        return {"outcome": "succeeded", "result": json.loads((place / "result.json").read_bytes() or "null")}

    def send_log(self, pipe):
        """Sends what the job prints in numbered chunks. Until one is answered, the job waits."""
        data, rest = True, b""
        while data:
            data = pipe.read1(9000)  # so many lines at most
            *lines, rest = (rest + data).split(b"\n")
            if rest and (not data or len(rest) > 9000):
                lines, rest = [*lines, rest], b""
            line = {"at": datetime.now(timezone.utc).isoformat(), "stream": "stdout"}
            lines = [{**line, "text": text.decode(errors="replace")} for text in lines]
            _, answer = self.call("POST", "logs", {"first_seq": self.next_seq, "lines": lines}) if lines else (0, {})
            self.next_seq = answer.get("next_seq", self.next_seq)  # a chunk that is refused is left out
            if answer.get("code") == "lease_lost":
                self.why = "lost"


def heartbeats():
    """One batch for all that is held, every interval with jitter, and given up when the next is due."""
    global last_beat
    while True:
        part = random.uniform(0.8, 1)
        pause(float("inf"), unless=lambda: time.monotonic() > last_beat + part * beat_seconds)
        last_beat, attempts = time.monotonic(), list(held)
        leases = [{"execution_id": each.leased["execution_id"], "lease_id": each.lease_id} for each in attempts]
        is_over = lambda: time.monotonic() > last_beat + beat_seconds
        _, answer = call("POST", "/heartbeats", {"leases": leases}, is_over) if leases else (0, {})
        for attempt, result in zip(attempts, answer.get("results", [])):
            if result["state"] == "lost":
                attempt.why = "lost"
            elif result["state"] == "cancel_requested":
                attempt.why = attempt.why or "cancelled"


def main():
    global beat_seconds, last_beat
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sigterms.append(time.monotonic()))
    threading.Thread(target=heartbeats, daemon=True).start()
    empty = 0
    while not sigterms:
        asked, lease_id = time.monotonic(), str(uuid.uuid4())  # the same until it is answered: so nothing is lost
        body = {"lease_id": lease_id, "worker_id": WORKER, "queues": QUEUES, "limit": SLOTS - len(held)}
        # Also for a moment after SIGTERM: what it brings then is given back, instead of running out.
        _, answer = call("POST", "/dequeue", body, lambda: sigterms and time.monotonic() > sigterms[0] + 5)
        beat_seconds = answer.get("heartbeat_interval_ms", 20_000) / 1000
        for leased in answer.get("executions", []):
            attempt = Attempt(leased, lease_id, "released" if sigterms else None)
            held.add(attempt)
            attempt.start()
        last_beat = min(last_beat, asked)  # since the lease may have begun with the first try
        empty = 0 if answer.get("executions") else min(empty + 1, 10)
        jittered = random.uniform(0, min(5, 0.1 * 2**empty)) if empty else 0
        pause(jittered + answer.get("poll_after_ms", 5000) / 1000, unless=lambda: sigterms)
        pause(float("inf"), unless=lambda: sigterms or len(held) < SLOTS)
    pause(DRAIN, unless=lambda: not held)
    for attempt in list(held):
        attempt.why = attempt.why or "released"
    pause(GRACE + 60, unless=lambda: not held)


main()
