"""Drives `agent.py` in the environment of a client generation."""
import json
import os
import queue
import signal
import subprocess
import threading
import time
from pathlib import Path

AGENT = Path(__file__).resolve().parent.parent / "agent.py"


class ClientError(Exception):
    """What the client library raised in the agent."""

    def __init__(self, answer):
        super().__init__(f"{answer['error']}: {answer['text']}")
        self.name = answer["error"]
        self.classes = answer["classes"]
        self.answer = answer


class AgentStuck(Exception):
    """No answer in time: the client waits for the server."""


class Agent:
    """One process of one generation. Calls are `agent.load(h="a", oid=...)`; each waits for its answer.

    `send` and `receive` split a call, for commands that are to block (a vote that waits for a lock).
    """

    def __init__(self, generation, log_path):
        self.generation = generation
        self.broken = False
        self.log = open(log_path, "ab")
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "ZEO_"))}
        self.process = subprocess.Popen([str(generation.python), str(AGENT)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=self.log, env=env)
        self.answers = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.receive(120)  # Python starts slowly on a busy machine

    def _read(self):
        for line in self.process.stdout:
            self.answers.put(line)
        self.answers.put(None)

    def send(self, command, **arguments):
        self.process.stdin.write(json.dumps([command, arguments]).encode() + b"\n")
        self.process.stdin.flush()

    def receive(self, timeout=180):
        try:
            line = self.answers.get(timeout=timeout)
        except queue.Empty:
            self.broken = True
            self.process.send_signal(signal.SIGUSR1)  # leaves its stacks in the log (Python 3)
            time.sleep(0.2)
            raise AgentStuck(f"{self.generation}: no answer after {timeout} s, see {self.log.name}") from None
        if line is None:
            self.broken = True
            raise AgentStuck(f"{self.generation}: the client process died, see {self.log.name}")
        answer = json.loads(line)
        if "error" in answer:
            raise ClientError(answer)
        return answer["ok"]

    def answered(self):
        return not self.answers.empty()

    def __getattr__(self, command):
        if command.startswith("_"):
            raise AttributeError(command)

        def call(timeout=180, **arguments):
            self.send(command, **arguments)
            return self.receive(timeout)
        return call

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.log.close()


class AgentPool:
    """Starting Python costs more than most tests: agents that are whole after a test serve the next."""

    def __init__(self, log_directory):
        self.log_directory = log_directory
        self.idle = {}
        self.lent = []

    def get(self, generation):
        spare = self.idle.setdefault(generation.environment, [])
        agent = spare.pop() if spare else Agent(generation, self.log_directory / f"client-{generation}.log")
        agent.generation = generation
        self.lent.append(agent)
        return agent

    def return_all(self):
        for agent in self.lent:
            if not agent.broken:
                try:
                    while agent.answered():
                        agent.receive(0)
                    agent.reset(timeout=60)
                except ClientError:
                    agent.broken = True
                except (AgentStuck, OSError):
                    agent.broken = True
            if agent.broken:
                agent.stop()
            else:
                self.idle[agent.generation.environment].append(agent)
        self.lent = []

    def stop(self):
        for agents in self.idle.values():
            for agent in agents:
                agent.stop()
        for agent in self.lent:
            agent.stop()
