"""The case `balancers`: the examples of contrib/ are configurations that HAProxy and keepalived accept, if these are installed."""
import shutil
import subprocess

from harness.generations import ROOT

CHECKS = {
    "haproxy": ["-c", "-f", str(ROOT / "contrib" / "haproxy" / "haproxy.cfg")],
    "keepalived": ["-t", "-f", str(ROOT / "contrib" / "keepalived" / "keepalived.conf")],
}


def run():
    for program, arguments in CHECKS.items():
        # They are not on everyone's PATH.
        found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
        if not found:
            print(f"  {program} is not installed")
            continue
        done = subprocess.run([found, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
        if done.returncode:
            raise AssertionError(f"{program} {' '.join(arguments)} ended with {done.returncode}: {done.stdout}")
        print(f"  {program}: fine")
