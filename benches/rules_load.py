#!/usr/bin/env python3
"""What do 10,000 rules cost? 500 groups of 20 at 15 s, on one core, in narthex and in a real Prometheus.

    cargo build --release
    python3 benches/rules_load.py target/release/narthex target/peers/usr/bin/prometheus

Each server scrapes the same 2,000 series from this program, alone and one after the other, bound to CPU 0. Half of the
rules record, half alert, one of twenty fires. After a warm-up, CPU time is taken for a minute, and what the server says
of its own evaluations. Options: --groups, --rules (per group), --interval, --seconds.
"""
import argparse
import http.server
import os
import re
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request

SHARDS = 100


def page(now):
    lines = ["# TYPE http_requests_total counter"]
    for shard in range(SHARDS):
        for service in range(5):
            for code in (200, 301, 404, 500):
                value = int((now - 1.7e9) * (1 + (shard * 7 + service * 3 + code) % 11))
                lines.append(f'http_requests_total{{shard="{shard}",service="s{service}",code="{code}"}} {value}')
    return ("\n".join(lines) + "\n").encode()


class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = page(time.time())
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def rules(groups, per_group):
    out = ["groups:"]
    for g in range(groups):
        of = f'http_requests_total{{shard="{g % SHARDS}"'
        out += [f"- name: group{g}", "  rules:"]
        for r in range(per_group):
            if r % 2 == 0:
                out += [f"  - record: g{g}:requests:rate5m_{r}",
                        f'    expr: sum by (service, code) (rate({of},code!="{r}"}}[5m]))']
            else:
                limit = 0 if r == 1 else 2 + r
                out += [f"  - alert: Errors{g}x{r}",
                        f'    expr: sum by (service) (rate({of},code="500"}}[5m]))'
                        f" / sum by (service) (rate({of}}}[5m])) > {limit}",
                        "    for: 1m",
                        "    labels: {severity: warning}",
                        "    annotations: {summary: '{{ $labels.service }} at {{ $value | humanizePercentage }}'}"]
    return "\n".join(out) + "\n"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def cpu_s(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read()).group(1)) / 1024


def metrics(port):
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60).read().decode()
    sums = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            name = name.split("{")[0]
            sums[name] = sums.get(name, 0.0) + float(value)
    return sums


def measure(binary, target, options):
    with tempfile.TemporaryDirectory() as work:
        open(f"{work}/rules.yml", "w").write(rules(options.groups, options.rules))
        open(f"{work}/prometheus.yml", "w").write(
            f"global: {{scrape_interval: {options.interval}s, evaluation_interval: {options.interval}s}}\n"
            f"rule_files: [rules.yml]\n"
            f"scrape_configs: [{{job_name: app, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]\n")
        port = free_port()
        server = subprocess.Popen(
            ["taskset", "-c", "0", os.path.abspath(binary), f"--config.file={work}/prometheus.yml",
             f"--storage.tsdb.path={work}/data", f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"],
            cwd=work, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline = time.time() + 60
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5).read()
                    break
                except OSError:
                    if time.time() > deadline:
                        raise
                    time.sleep(0.05)
            # Until each group was evaluated a few times and alerts fire.
            wanted = 6 * options.groups * options.rules
            while metrics(port).get("prometheus_rule_evaluations_total", 0) < wanted:
                time.sleep(1)
            before, cpu, began = metrics(port), cpu_s(server.pid), time.time()
            time.sleep(options.seconds)
            cpu, took, after = cpu_s(server.pid) - cpu, time.time() - began, metrics(port)
            evaluated = after["prometheus_rule_evaluations_total"] - before["prometheus_rule_evaluations_total"]
            missed = after["prometheus_rule_group_iterations_missed_total"] - \
                before["prometheus_rule_group_iterations_missed_total"]
            failed = after["prometheus_rule_evaluation_failures_total"]
            busy = after["prometheus_rule_group_last_duration_seconds"]
            print(f"{os.path.basename(binary)}: {cpu / took * 100:.2f} % of a core, {cpu / evaluated * 1e6:.0f} us of CPU "
                  f"a rule, {busy:.2f} s for all groups once, {evaluated:.0f} evaluations, {missed:.0f} missed, "
                  f"{failed:.0f} failed, {rss_mb(server.pid):.0f} MB resident", flush=True)
        finally:
            server.terminate()
            server.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", nargs="+")
    parser.add_argument("--groups", type=int, default=500)
    parser.add_argument("--rules", type=int, default=20)
    parser.add_argument("--interval", type=int, default=15)
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for binary in options.binary:
        measure(binary, server.server_address[1], options)


if __name__ == "__main__":
    main()
