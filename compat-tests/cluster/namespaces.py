"""Servers in network namespaces of their own, one more for the clients, and the switch between them, which drops, loses
and delays packets. An end whose packets are dropped hears nothing, as if a cable were cut: neither a reset nor an end.

Each namespace has one TUN device. What it sends arrives here as a packet, and goes on as the way from its source to its
destination allows. So ways are cut in one direction, too, and no queueing discipline (`netem`) is needed, which not all
kernels have. The devices end with this process, the names of the namespaces with `close`.

It needs root's rights, `ip` of iproute2, and /dev/net/tun.
"""
import fcntl
import heapq
import itertools
import os
import random
import select
import shutil
import socket
import struct
import subprocess
import threading
import time

TUN = "/dev/net/tun"
# From linux/if_tun.h: TUNSETIFF, and IFF_TUN | IFF_NO_PI.
SET_INTERFACE, IP_PACKETS = 0x400454CA, 0x1001
NETWORK = "10.213.78"
CLIENTS = "clients"
# Packets from one device, before the others have their turn.
BURST = 64


def ip(*words, check=True):
    return subprocess.run(["ip", *words], check=check, stderr=subprocess.PIPE).returncode


def missing():
    """Why there can be no namespaces, or None."""
    if os.geteuid() != 0 or not shutil.which("ip") or not os.access(TUN, os.R_OK | os.W_OK):
        return f"network namespaces need root's rights, `ip` of iproute2, and {TUN}"
    name = f"runzeo-{os.getpid()}-try"
    if ip("netns", "add", name, check=False):
        return "no network namespace can be made here"
    ip("netns", "delete", name)
    return None


class Way:
    """From one namespace to another. What it does is set by its methods, at any time."""

    def __init__(self):
        self.last = 0.0
        self.heal()

    def cut(self):
        """No packet arrives."""
        self.loss = 1.0

    def lose(self):
        """Every tenth packet does not arrive."""
        self.loss = 0.1

    def delay(self):
        """Packets arrive later, in their order."""
        self.latency = 0.1

    def heal(self):
        self.loss, self.latency = 0.0, 0.0

    def due(self, now):
        """When a packet arrives; None: never."""
        if self.loss and random.random() < self.loss:
            return None
        if self.latency:
            now += random.uniform(0, self.latency)
        # What was sent before may still be under way.
        self.last = max(self.last, now)
        return self.last


class Namespaces:
    """The network of a cluster of these servers."""

    faults = ["cut", "cut", "delay", "lose"]
    # How long faults last, in seconds: also longer than servers wait for a sign of life.
    lasting = [0.1, 0.5, 1.5, 3, 6, 14, 25]

    def __init__(self, names):
        self.names = list(names)
        self.nodes = {name: f"{NETWORK}.{number}" for number, name in enumerate([*names, CLIENTS], 1)}
        self.ways = {pair: Way() for pair in itertools.permutations(self.nodes, 2)}
        self.devices, self.is_closing, self.error = {}, False, None
        # (when, number, device, packet)
        self.held, self.numbers = [], itertools.count()
        addresses = {name: socket.inet_aton(address) for name, address in self.nodes.items()}
        self.routes = {addresses[source] + addresses[target]: (way, target)
                       for (source, target), way in self.ways.items()}
        try:
            for number, name in enumerate(self.nodes):
                self.devices[name] = self._lay(name, f"rz{os.getpid()}n{number}")
        except BaseException:
            self.close()
            raise
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _namespace(self, name):
        return f"runzeo-{os.getpid()}-{name}"

    def _lay(self, name, interface):
        inside = self._namespace(name)
        ip("netns", "add", inside)
        device = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(device, SET_INTERFACE, struct.pack("16sH22x", interface.encode(), IP_PACKETS))
        ip("link", "set", interface, "netns", inside)
        ip("-n", inside, "address", "add", f"{self.nodes[name]}/24", "dev", interface)
        ip("-n", inside, "link", "set", interface, "mtu", "9000", "txqueuelen", "5000", "up")
        ip("-n", inside, "link", "set", "lo", "up")
        return device

    # Where servers and clients are

    def inside(self, name=CLIENTS):
        """What a command begins with that runs there."""
        return ["ip", "netns", "exec", self._namespace(name)]

    def address(self, name):
        """For clients. The port names the server."""
        return self.nodes[name], 8101 + self.names.index(name)

    def listen(self, name):
        return f"{self.nodes[name]}:8200"

    def peer(self, _, other):
        """Where a server reaches another one."""
        return self.listen(other)

    # Faults

    def some(self, dice):
        """Ways at random, and their name."""
        one, other = dice.sample(self.names, 2)
        others = [name for name in self.names if name != one]
        to, back = [(one, name) for name in others], [(name, one) for name in others]
        clients, from_clients = (one, CLIENTS), (CLIENTS, one)
        text, pairs = dice.choice([
            (f"{one} and all", [*to, *back, clients, from_clients]),
            (f"{one} and its peers", [*to, *back]),
            (f"{one} and {other}", [(one, other), (other, one)]),
            (f"from {one} to {other}", [(one, other)]),
            (f"from {one} to all", [*to, clients]),
            (f"from all to {one}", [*back, from_clients]),
            (f"{one} and clients", [clients, from_clients]),
            (f"from {one} to clients", [clients]),
        ])
        return text, [self.ways[pair] for pair in pairs]

    def heal(self):
        for way in self.ways.values():
            way.heal()

    def close(self):
        self.is_closing = True
        if len(self.devices) == len(self.nodes):
            self.thread.join()
        for device in self.devices.values():
            os.close(device)
        for name in self.nodes:
            ip("netns", "delete", self._namespace(name), check=False)

    # The switch

    def check(self):
        if self.error:
            raise AssertionError(f"the switch has ended: {self.error}")

    def _run(self):
        try:
            self._pass_packets()
        except Exception as error:
            self.error = error

    def _pass_packets(self):
        poll = select.poll()
        for device in self.devices.values():
            poll.register(device, select.POLLIN)
        while not self.is_closing:
            wait = self.held[0][0] - time.monotonic() if self.held else 0.2
            ready = poll.poll(max(0, min(wait, 0.2)) * 1000)
            now = time.monotonic()
            while self.held and self.held[0][0] <= now:
                _, _, device, packet = heapq.heappop(self.held)
                self._write(device, packet)
            for device, _ in ready:
                for _ in range(BURST):
                    try:
                        packet = os.read(device, 65536)
                    except BlockingIOError:
                        break
                    self._pass(packet, now)

    def _pass(self, packet, now):
        # Others than of IPv4 are not for anybody here.
        way, target = self.routes.get(packet[12:20], (None, None)) if packet[0] >> 4 == 4 else (None, None)
        due = way and way.due(now)
        if due is None:
            return
        if due > now:
            heapq.heappush(self.held, (due, next(self.numbers), self.devices[target], packet))
        else:
            self._write(self.devices[target], packet)

    def _write(self, device, packet):
        try:
            os.write(device, packet)
        except (BlockingIOError, InterruptedError):
            pass  # lost, as on a network
