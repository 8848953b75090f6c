"""The case `agent`: contrib/pacemaker/runzeo is called as Pacemaker calls it, for three servers of a cluster.

What the agent needs of Pacemaker is replaced by a few lines of shell: attributes of nodes are files.
"""
import os
import signal
import subprocess
import time

from harness import generations
from harness.generations import ROOT
from harness.server import clean_environment, our_binary

from servers import Cluster

AGENT = ROOT / "contrib" / "pacemaker" / "runzeo"
GENERATIONS = ["zeo6-py311"]
SUCCESS, FAILED, CONFIGURED, NOT_RUNNING, PROMOTED = 0, 1, 6, 7, 8

FUNCTIONS = """
OCF_SUCCESS=0 OCF_ERR_GENERIC=1 OCF_ERR_UNIMPLEMENTED=3 OCF_ERR_INSTALLED=5 OCF_ERR_CONFIGURED=6 OCF_NOT_RUNNING=7
OCF_RUNNING_MASTER=8
ocf_is_root() { [ "$(id -u)" = 0 ]; }
ocf_is_probe() { [ "$OCF_RESKEY_CRM_meta_interval" = 0 ]; }
ocf_is_decimal() { case $1 in '' | *[!0-9]*) return 1 ;; esac; }
ocf_exit_reason() { echo "reason: $*" >&2; }
ocf_log() { shift; echo "log: $*" >&2; }
ocf_local_nodename() { echo "$NODE"; }
ocf_promotion_score() { "$HA_SBIN_DIR/crm_attribute" -N "$NODE" -n score "$@"; }
"""

ATTRD_UPDATER = """#!/bin/sh
node=$NODE
while [ $# -gt 0 ]; do
  case $1 in
    -N) node=$2; shift ;;
    -n) name=$2; shift ;;
    -U) value=$2; shift ;;
    -Q) query=1 ;;
  esac
  shift
done
file=$ATTRIBUTES/$node.$name
if [ -z "${query-}" ]; then echo "$value" >"$file"
elif [ -e "$file" ]; then echo "name=\\"$name\\" host=\\"$node\\" value=\\"$(cat "$file")\\""
else exit 6; fi
"""

CRM_ATTRIBUTE = """#!/bin/sh
while [ $# -gt 0 ]; do
  case $1 in
    -N) node=$2; shift ;;
    -n) name=$2; shift ;;
    -v) value=$2; shift ;;
    -D) remove=1 ;;
  esac
  shift
done
file=$ATTRIBUTES/$node.$name
if [ -n "${remove-}" ]; then rm -f "$file"; else echo "${value-}" >"$file"; fi
"""


def expect(what, found, wanted):
    if found != wanted:
        raise AssertionError(f"{what}: {found!r}, and not {wanted!r}")


def nobody_can_run(program, directory):
    """Whether the server can run as another user than this one."""
    as_nobody = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]
    done = subprocess.run([*as_nobody, "sh", "-c", '"$0" --version && test -w "$1"', program, str(directory)],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return done.returncode == 0


class Node:
    """A node of the cluster manager, with one server."""

    def __init__(self, top, member):
        self.name, self.member = member.name, member
        self.attributes = top / "attributes"
        member.server.write_config()
        temporary = member.directory / "rsctmp"
        temporary.mkdir()
        binary = our_binary()
        for path in (member.directory, temporary):
            path.chmod(0o777)
        user, group = ("nobody", "nogroup") if nobody_can_run(binary, member.directory) else ("root", "root")
        self.environment = clean_environment(
            OCF_FUNCTIONS_DIR=str(top), HA_SBIN_DIR=str(top), HA_RSCTMP=str(temporary), ATTRIBUTES=str(self.attributes),
            NODE=self.name, OCF_RESOURCE_INSTANCE="zeo:0", OCF_RESKEY_config=str(member.directory / "zeo.conf"),
            OCF_RESKEY_binary=binary, OCF_RESKEY_admin=os.path.join(os.path.dirname(binary), "zeoadmin"),
            OCF_RESKEY_user=user, OCF_RESKEY_group=group, OCF_RESKEY_directory=str(member.directory),
            OCF_RESKEY_output=str(member.directory / "output.log"), OCF_RESKEY_CRM_meta_timeout="60000",
            OCF_RESKEY_CRM_meta_interval="5000")

    def call(self, action, **more):
        """Exit status and what was said."""
        done = subprocess.run([str(AGENT), action], env={**self.environment, **more}, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=120)
        return done.returncode, done.stdout

    def does(self, action, wanted=SUCCESS, **more):
        status, said = self.call(action, **more)
        if status != wanted:
            raise AssertionError(f"{action} at {self.name}: {status}, and not {wanted}: {said}\n{self.member.server.talk()}")
        return said

    def score(self):
        path = self.attributes / f"{self.name}.score"
        return int(path.read_text()) if path.exists() else None

    def pid(self):
        return int((self.member.directory / "rsctmp" / "runzeo-zeo.pid").read_text())


def promote(nodes, chosen, wanted=SUCCESS):
    """As Pacemaker does it: first all are notified."""
    names = " ".join(node.name for node in nodes)
    facts = {"OCF_RESKEY_CRM_meta_notify_slave_uname": names, "OCF_RESKEY_CRM_meta_notify_type": "pre",
             "OCF_RESKEY_CRM_meta_notify_operation": "promote"}
    for node in nodes:
        node.does("notify", **facts)
    return chosen.does("promote", wanted, **facts)


def monitored(node, wanted, score, timeout=60):
    """Until a monitor says so."""
    deadline = time.time() + timeout
    while True:
        status, said = node.call("monitor")
        if (status, node.score()) == (wanted, score):
            return
        if time.time() > deadline:
            raise AssertionError(f"monitor at {node.name}: {status} and score {node.score()}, not {wanted} and {score}: {said}")
        time.sleep(0.1)


def run(top, pool):
    (top / "ocf-shellfuncs").write_text(FUNCTIONS)
    for name, text in (("crm_attribute", CRM_ATTRIBUTE), ("attrd_updater", ATTRD_UPDATER)):
        (top / name).write_text(text)
        (top / name).chmod(0o755)
    (top / "attributes").mkdir()
    # The servers are run by another user.
    for path in (top, top.parent):
        path.chmod(0o755)
    cluster = Cluster(top, ["synchronous-replicas 1", "on-timeout block"])
    nodes = a, b, c = [Node(top, member) for member in cluster]
    try:
        look_at_configurations(a)
        begin(nodes)
        serial = write(pool, cluster["a"])
        move(a, b, c)
        kill_the_one_with_more(nodes, cluster.network.lines, pool, serial)
        for node in nodes:
            node.does("stop")
            node.does("stop")
            node.does("monitor", NOT_RUNNING)
            expect(f"the score of {node.name} when it has stopped", node.score(), None)
    finally:
        for node in nodes:
            node.call("stop", OCF_RESKEY_CRM_meta_timeout="6000")
        cluster.kill()


def look_at_configurations(node):
    said = node.does("meta-data")
    expect("the last line of meta-data", said.strip().splitlines()[-1], "</resource-agent>")
    node.does("validate-all")
    node.does("validate-all", CONFIGURED, OCF_RESKEY_max_lag="soon")
    plain = node.member.directory / "plain.conf"
    plain.write_text("<zeo>\n  address 1\n</zeo>\n<mappingstorage 1>\n</mappingstorage>\n")
    said = node.does("validate-all", CONFIGURED, OCF_RESKEY_config=str(plain))
    expect(f"whether {said} names the section", "<replication>" in said, True)


def begin(nodes):
    """All start as replicas. One that has not met its cluster has no score; the first primary has one."""
    a, b, c = nodes
    for node in nodes:
        node.does("monitor", NOT_RUNNING)
    b.does("start")
    b.does("start")
    monitored(b, SUCCESS, None)
    a.does("start")
    monitored(a, SUCCESS, 200)
    c.does("start")
    promote(nodes, a)
    monitored(a, PROMOTED, 1000)
    for node in (b, c):
        monitored(node, SUCCESS, 100)


def write(pool, member):
    agent = pool.get(generations.BY_NAME["zeo6-py311"])
    agent.open(h="agent", addr=member.address, watch=False)
    oid, = agent.new_oids(h="agent", count=1)
    tid = agent.commit(h="agent", changes=[[oid, "00" * 8, 1, 10]])
    agent.close(h="agent")
    return tid


def move(a, b, c):
    """As planned. A replica whose primary is still there is not promoted."""
    b.does("promote", FAILED, OCF_RESKEY_CRM_meta_timeout="6000")
    monitored(a, PROMOTED, 1000)
    a.does("demote")
    a.does("demote")
    monitored(a, SUCCESS, 200)
    promote((a, b, c), b)
    monitored(b, PROMOTED, 1000)
    for node in (a, c):
        monitored(node, SUCCESS, 100)


def kill_the_one_with_more(nodes, lines, pool, serial):
    """One replica is cut off, the primary commits, and is killed: the other replica has more."""
    a, b, c = nodes
    cut_off = [line for pair, line in lines.items() if "a" in pair]
    for line in cut_off:
        line.cut()
    tid = write(pool, b.member)
    expect("whether the clock goes on", tid > serial, True)
    os.kill(b.pid(), signal.SIGKILL)
    monitored(b, NOT_RUNNING, b.score())
    said = promote((a, c), a, FAILED)
    expect(f"whether {said!r} names the node", "not promoted: c has" in said, True)
    expect("scores", (a.score(), c.score()), (10, 100))
    promote((a, c), c)
    for line in cut_off:
        line.heal()
    # It has the role of a primary in its file.
    b.does("start")
    expect("the role at the start", "starts as a replica" in b.member.server.log_text(), False)
    for node, status, score in ((c, PROMOTED, 1000), (a, SUCCESS, 100), (b, SUCCESS, 100)):
        monitored(node, status, score)
    expect("the last transaction", c.member.place()[1] >= tid, True)
    # A server that does not answer, and one that is killed because it does not end.
    os.kill(a.pid(), signal.SIGSTOP)
    a.does("stop", OCF_RESKEY_CRM_meta_timeout="7000")
    a.does("monitor", NOT_RUNNING)
