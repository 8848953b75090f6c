"""A browser, driven through chromedriver by the WebDriver protocol: JSON over HTTP, so Python's own library is enough."""
import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

PATIENCE = 60


def missing():
    """Why there is no browser here; None if there is one."""
    for names in (CHROMIUM, DRIVER):
        if not found(names):
            return f"no {names[0]}: apt-get install chromium chromium-driver"
    return None


CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
DRIVER = ("chromedriver",)


def found(names):
    return next((path for path in map(shutil.which, names) if path), None)


class Browser:
    """One window. `devtools` has what WebDriver has not: colours, sizes of phones, whether scripts run."""

    def __init__(self, log_path):
        self.profile = tempfile.mkdtemp(prefix="runzeo-browser-")
        self.log = open(log_path, "wb")
        self.driver = subprocess.Popen([found(DRIVER), "--port=0"], stdout=subprocess.PIPE, stderr=self.log)
        self.base = None
        for line in self.driver.stdout:
            self.log.write(line)
            if b"started successfully on port" in line:
                self.base = f"http://127.0.0.1:{int(line.rstrip(b'.' + bytes([10])).split()[-1])}"
                break
        if not self.base:
            raise RuntimeError(f"chromedriver has not started: {log_path}")
        arguments = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                     "--no-first-run", "--host-resolver-rules=MAP *.example 127.0.0.1", "--disable-background-networking", f"--user-data-dir={self.profile}"]
        if os.geteuid() == 0:
            arguments.append("--no-sandbox")
        options = {"binary": found(CHROMIUM), "args": arguments}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        try:
            answer = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        except Exception:
            self.close()
            raise
        self.base += f"/session/{answer['sessionId']}"

    def _ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            said = json.load(error)["value"]
            raise RuntimeError(f"{method} {path}: {said['error']}: {said['message']}") from None

    def open(self, url):
        self._ask("POST", "/url", {"url": url})

    def run(self, script, *arguments):
        """The value of JavaScript with `return`."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def _element(self, selector):
        return next(iter(self._ask("POST", "/element", {"using": "css selector", "value": selector}).values()))

    def click(self, selector):
        self._ask("POST", f"/element/{self._element(selector)}/click", {})

    def text(self, selector):
        """As it is seen; not by a script, so that it works where none run."""
        for _ in range(20):
            try:
                return self._ask("GET", f"/element/{self._element(selector)}/text")
            except RuntimeError as error:
                # The page is being loaded again.
                if "stale element" not in str(error) and "no such element" not in str(error):
                    raise
                time.sleep(0.05)
        return self._ask("GET", f"/element/{self._element(selector)}/text")

    def press(self, key):
        keys = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        self._ask("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": keys}]})

    def devtools(self, command, **parameters):
        return self._ask("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def complaints(self):
        """Errors and warnings of the console since the last call: of scripts, of the network, and violated policies."""
        lines = self._ask("POST", "/se/log", {"type": "browser"})
        return [line["message"] for line in lines if line["level"] in ("WARNING", "SEVERE")]

    def picture(self, path):
        """The whole page, not only what is in the window."""
        size = self.devtools("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 6000), "scale": 1}
        shot = self.devtools("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        Path(path).write_bytes(base64.b64decode(shot["data"]))

    def wait(self, what, wanted, timeout=PATIENCE):
        """Waits until `wanted()` is true, and returns that."""
        deadline = time.monotonic() + timeout
        while True:
            value = wanted()
            if value:
                return value
            if time.monotonic() > deadline:
                raise AssertionError(f"in {timeout} s there was not: {what}")
            time.sleep(0.1)

    def close(self):
        try:
            if "/session/" in (self.base or ""):
                self._ask("DELETE", "")
        finally:
            self.driver.terminate()
            self.driver.wait(PATIENCE)
            self.driver.stdout.close()
            self.log.close()
            shutil.rmtree(self.profile, ignore_errors=True)
