"""The program: signals and exit codes, busy addresses, locks, log files, ruok. No client library needed."""
import json
import os
import signal
import socket
import struct
import subprocess
import time

from harness.scenario import check, equal, program
from harness.server import clean_environment, free_port


def receive_frame(sock):
    def exactly(count):
        data = b""
        while len(data) < count:
            part = sock.recv(count - len(data))
            if not part:
                raise AssertionError("closed in the middle of a frame")
            data += part
        return data
    return exactly(struct.unpack(">I", exactly(4))[0])


def run_to_end(world, arguments, program=None, timeout=60, **environment):
    """Runs the program until it ends by itself: exit code and all it said."""
    program = program or world.make_program(None)
    done = subprocess.run(program.command + arguments, cwd=world.directory, env=clean_environment(**environment),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout)
    return done.returncode, done.stdout.decode(errors="replace")


@program()
def exit_codes(world):
    for number, wanted in ((signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGHUP, 1)):
        server = world.server(name=f"signal{number}")
        equal(server.stop(number), wanted, f"exit code after signal {number}")
        with open(server.directory / "Data.fs.lock", "rb"):
            pass


@program()
def sigusr2_reopens_the_log(world):
    server = world.server()
    os.rename(server.log_path, server.directory / "zeo.log.1")
    server.send_signal(signal.SIGUSR2)
    deadline = time.time() + 60
    while not server.log_path.exists() and time.time() < deadline:
        time.sleep(0.01)
    check(server.log_path.exists(), "no new log file")
    server.connect().close()
    check(server.running())
    equal(server.stop(), 0)
    check(server.log_path.stat().st_size > 0, "the end of the log goes to the new file")


@program()
def command_line_alone(world):
    """-a and -f are enough; the file appears."""
    port = free_port()
    arguments = ["-a", f"127.0.0.1:{port}", "-f", "new.fs"]
    process = subprocess.Popen(world.make_program(None).command + arguments, cwd=world.directory,
                               env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        deadline = time.time() + 60
        while time.time() < deadline:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=5) as probe:
                    equal(receive_frame(probe), b"Z5", "greeting")
                break
            except ConnectionRefusedError:
                time.sleep(0.02)
        check((world.directory / "new.fs").stat().st_size >= 4)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        talk = process.communicate(timeout=60)[0].decode()
        equal(process.returncode, 0)
        check("listening on" in talk, talk)
    finally:
        process.kill()


@program()
def ruok(world):
    server = world.server(storages={"1": ("a.fs", ""), "two": ("b.fs", "")})
    with server.connect() as sock:
        sock.settimeout(60)
        equal(receive_frame(sock), b"Z5")
        sock.sendall(struct.pack(">I", 4) + b"ruok")
        status = json.loads(receive_frame(sock))
        equal(set(status), {"1", "two"})
        check({"loads", "stores", "commits", "connections", "start"} <= set(status["1"]), status)
        equal(sock.recv(1), b"", "closed afterwards")


@program()
def msgpack_greeting(world):
    server = world.server(zeo="msgpack true")
    with server.connect() as sock:
        equal(receive_frame(sock), b"M5")
    server.stop()
    server.zeo = ""
    server.start(environment={"ZEO_MSGPACK": "1"})
    with server.connect() as sock:
        equal(receive_frame(sock), b"M5", "by environment")


@program()
def busy_address(world):
    server = world.server()
    code, talk = run_to_end(world, ["-a", "%s:%s" % server.address, "-f", "other.fs"])
    check(code != 0, "exit code", code)
    if not world.make_program(None).is_python:
        equal(code, 2)
        check("in use" in talk and "Traceback" not in talk, talk)


@program()
def locked_file(world):
    server = world.server()
    code, talk = run_to_end(world, ["-a", f"127.0.0.1:{free_port()}", "-f", str(server.data_path)])
    check(code != 0, "exit code", code)
    check("lock" in talk.lower(), talk)
    check(server.running())


@program(ours_only=True)
def locked_by_python_and_by_us(world):
    """The lock excludes the two kinds of server from each other."""
    from harness.generations import BY_NAME
    from harness.scenario import Skip
    from harness.server import Program
    why = BY_NAME["zeo6-py311"].missing()
    if why:
        raise Skip(why)
    python = Program.python("zeo6-py311")
    first = world.server(name="python", program=python)
    code, talk = run_to_end(world, ["-a", f"127.0.0.1:{free_port()}", "-f", str(first.data_path)])
    check(code != 0 and "lock" in talk.lower(), code, talk)
    second = world.server(name="ours")
    code, talk = run_to_end(world, ["-a", f"127.0.0.1:{free_port()}", "-f", str(second.data_path)], program=python)
    check(code != 0 and "Lock" in talk, code, talk)


@program()
def missing_directory(world):
    code, talk = run_to_end(world, ["-a", f"127.0.0.1:{free_port()}", "-f", "not/there/Data.fs"])
    check(code != 0, code, talk)
    if not world.make_program(None).is_python:
        check("not/there" in talk, talk)
        equal(len([line for line in talk.splitlines() if "not/there" in line]), 1, talk)


@program()
def usage_errors(world):
    for arguments in (["--nonsense"], [], ["-a", "127.0.0.1:1234"], ["-f", "Data.fs"], ["-C", "not-there.conf"],
                      ["-t", "abc", "-a", "8100", "-f", "Data.fs"], ["too", "many"]):
        code, talk = run_to_end(world, arguments)
        equal(code, 2, f"exit code of {arguments} ({talk.strip()})")
        check(talk.strip(), "says nothing about", arguments)
    code, talk = run_to_end(world, ["--help"])
    equal(code, 0)
    for option in ("-C", "-a", "-f", "-t", "--pid-file"):
        check(option in talk, option, "is not in --help")


@program(ours_only=True)
def version(world):
    code, talk = run_to_end(world, ["--version"])
    equal(code, 0)
    check(any(c.isdigit() for c in talk), talk)


@program(ours_only=True)
def check_option(world):
    """--check reads the configuration and opens nothing."""
    server = world.server(start=False, storages={"main": ("main.fs", "")})
    config = server.write_config()
    code, talk = run_to_end(world, ["--check", "-C", str(config)])
    equal(code, 0, talk)
    check("main" in talk and str(server.address[1]) in talk, talk)
    check(not server.data_path.exists(), "a file was made")
    config.write_text(config.read_text().replace("<filestorage main>", "<filestorage main>\n  pth x"))
    code, talk = run_to_end(world, ["--check", "-C", str(config)])
    equal(code, 2, talk)
    check("pth" in talk and "zeo.conf" in talk, talk)


@program()
def pid_file(world):
    server = world.server(zeo=f"pid-filename {world.directory}/zeo.pid")
    equal(int((world.directory / "zeo.pid").read_text()), server.process.pid)
    equal(server.stop(), 0)
    check(not (world.directory / "zeo.pid").exists(), "the pid file stays")


@program()
def closed_output(world):
    """Started with closed standard streams, as some supervisors do."""
    port = free_port()
    server = world.server(start=False, address=("127.0.0.1", port))
    config = server.write_config()
    command = " ".join(server.program.command) + f" -C {config} <&- >&- 2>&-"
    server.output = open(os.devnull, "wb")
    server.process = subprocess.Popen(["sh", "-c", "exec " + command], cwd=server.directory,
                                      env=clean_environment())
    server.wait_listening()
    equal(server.stop(), 0)
