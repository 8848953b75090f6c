"""One Zope process with its instance directory, and what its users do over HTTP."""
import base64
import html
import http.client
import os
import re
import secrets
import shutil
import subprocess
import time
import urllib.parse
from pathlib import Path

from harness.generations import VENVS
from harness.server import clean_environment, free_port

DATABASE = "/Control_Panel/Database/main"
HERE = Path(__file__).resolve().parent

ZOPE_CONF = """
%define INSTANCE {instance}
instancehome $INSTANCE
<zodb_db main>
  <zeoclient>
{servers}
    storage 1
    name main
    var $INSTANCE/var
    blob-dir {blob_dir}
    shared-blob-dir {shared}
    cache-size 20MB
    min-disconnect-poll 1
    max-disconnect-poll 1
    wait true
    read-only-fallback {read_only_fallback}
  </zeoclient>
  mount-point /
</zodb_db>
"""

ZOPE_INI = """
[app:zope]
use = egg:Zope#main
zope_conf = {instance}/etc/zope.conf
[server:main]
use = egg:waitress#main
host = 127.0.0.1
port = {port}
threads = 4
[pipeline:main]
pipeline =
    egg:Zope#httpexceptions
    zope
[loggers]
keys = root
[handlers]
keys = eventlog
[formatters]
keys = generic
[logger_root]
level = INFO
handlers = eventlog
[handler_eventlog]
class = FileHandler
args = ('{instance}/event.log', 'a')
formatter = generic
[formatter_generic]
format = %(asctime)s %(levelname)s %(name)s %(message)s
"""


class HttpError(Exception):
    def __init__(self, status, method, path, body):
        text = re.sub(r"<[^>]*>|\s+", " ", body.decode(errors="replace"))
        super().__init__(f"{method} {path}: {status} {text[:300]}")
        self.status = status


class Zope:
    """A process on its own port, with its own client cache and blob directory. `others`: more servers of the cluster."""

    def __init__(self, environment, directory, server, shared_blob_dir=None, others=(), read_only_fallback=False):
        self.environment = environment
        self.directory = Path(directory)
        self.port = free_port()
        bin_directory = VENVS / environment / "bin"
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([bin_directory / "python", bin_directory / "mkwsgiinstance", "-d", self.directory,
                        "-u", "admin:secret"], check=True, stdout=subprocess.DEVNULL, env=clean_environment())
        shutil.copytree(HERE / "Extensions", self.directory / "Extensions", dirs_exist_ok=True,
                        ignore=shutil.ignore_patterns("__pycache__"))
        (self.directory / "etc" / "zope.conf").write_text(ZOPE_CONF.format(
            instance=self.directory,
            servers="\n".join("    server %s:%s" % tuple(one.address) for one in (server, *others)),
            read_only_fallback="true" if read_only_fallback else "false",
            blob_dir=shared_blob_dir or self.directory / "var" / "blobs",
            shared="yes" if shared_blob_dir else "no"))
        (self.directory / "etc" / "zope.ini").write_text(ZOPE_INI.format(instance=self.directory, port=self.port))
        self.authorization = "Basic " + base64.b64encode(b"admin:secret").decode()

    def start(self):
        python = VENVS / self.environment / "bin"
        self.output = open(self.directory / "output.log", "ab")
        self.process = subprocess.Popen([str(python / "python"), str(python / "runwsgi"),
                                         str(self.directory / "etc" / "zope.ini")],
                                        cwd=self.directory, stdout=self.output, stderr=self.output,
                                        env=clean_environment())
        return self

    def wait_ready(self, timeout=90):
        deadline = time.time() + timeout
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(f"Zope ended with {self.process.returncode}:\n{self.talk()}")
            try:
                self.get("/Control_Panel/getId")
                return self
            except HttpError as error:
                if error.status < 500:
                    return self
            except OSError:
                pass
            if time.time() > deadline:
                raise RuntimeError(f"Zope does not answer:\n{self.talk()}")
            time.sleep(0.05)

    def talk(self):
        return "\n".join(path.read_text(errors="replace")[-3000:]
                         for path in (self.directory / "output.log", self.directory / "event.log") if path.exists())

    def log_text(self):
        path = self.directory / "event.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def reasons_of_error_pages(self):
        """The classes of the exceptions that ended requests."""
        entries = re.split(r"(?m)^(?=\d{4}-\d\d-\d\d )", self.log_text())
        last_lines = [entry.strip().splitlines()[-1] for entry in entries if "Exception while serving" in entry]
        return {re.match(r"[\w.]*", line).group().rpartition(".")[2] for line in last_lines}

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.output.close()

    # -- HTTP

    def request(self, method, path, body=None, content_type=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Authorization": self.authorization}
        if content_type:
            headers["Content-Type"] = content_type
        try:
            connection.request(method, urllib.parse.quote(path, safe="/?=&%:"), body, headers)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            raise HttpError(answer.status, method, path, data)
        return data

    def get(self, path):
        return self.request("GET", path)

    def post(self, path, **fields):
        return self.request("POST", path, urllib.parse.urlencode(fields, doseq=True),
                            "application/x-www-form-urlencoded")

    def upload(self, path, field, data, file_name="file", /, **fields):
        """A form with one file."""
        boundary = secrets.token_hex(16)
        body = b""
        for key, value in fields.items():
            body += (f"--{boundary}\r\nContent-Disposition: form-data; name=\"{key}\"\r\n\r\n{value}\r\n").encode()
        body += (f"--{boundary}\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"{file_name}\"\r\n"
                 "Content-Type: application/octet-stream\r\n\r\n").encode()
        body += data + f"\r\n--{boundary}--\r\n".encode()
        return self.request("POST", path, body, f"multipart/form-data; boundary={boundary}")

    # -- what users do

    def add_folder(self, path, name):
        self.post(f"{path}/manage_addProduct/OFSP/manage_addFolder", id=name, title=name)

    def add_page(self, path, name, text):
        self.upload(f"{path}/manage_addProduct/OFSP/addDTMLMethod", "file", text.encode(), id=name, title=name)

    def edit_page(self, path, text, title="edited"):
        self.post(f"{path}/manage_edit", data=text, title=title)

    def add_image(self, path, name, data):
        self.upload(f"{path}/manage_addProduct/OFSP/manage_addImage", "file", data, f"{name}", id=name, title=name)

    def add_file(self, path, name, data):
        self.upload(f"{path}/manage_addProduct/OFSP/manage_addFile", "file", data, f"{name}", id=name, title=name)

    def replace_file(self, path, data):
        self.upload(f"{path}/manage_upload", "file", data, "replacement")

    def add_external_method(self, path, name, module, function):
        self.post(f"{path}/manage_addProduct/ExternalMethod/manage_addExternalMethod", id=name, title="",
                  module=module, function=function)

    def undoable(self, first=0, last=200):
        """The choices of the undo page, newest first: what its form sends for each."""
        page = self.get(f"{DATABASE}/manage_UndoForm?first_transaction:int={first}&last_transaction:int={last}"
                        f"&PrincipiaUndoBatchSize:int={last - first}").decode()
        return [html.unescape(value) for value in re.findall(
            r'name="transaction_info:list"\s+value="([^"]*)"', page)]

    def undo(self, choices):
        """Answers the page that follows: it tells what went wrong."""
        fields = urllib.parse.urlencode([("transaction_info:list", choice) for choice in choices])
        return self.request("POST", f"{DATABASE}/manage_undo_transactions", fields, "application/x-www-form-urlencoded")

    def pack(self, days=0):
        self.post(f"{DATABASE}/manage_pack", **{"days:float": days})


def environment_is_missing(name):
    python = VENVS / name / "bin" / "runwsgi"
    return None if python.exists() else f"no environment {python.parent.parent}"


def kill_all(processes):
    for process in processes:
        if getattr(process, "process", None) and process.process.poll() is None:
            process.process.kill()
            process.process.wait()
