"""What the trials share: servers, the line between, drives on machines of their own, figures.

A trial is one command. It prints what it does on stderr, its figures on stdout as `name: value`, and ends with 0 when
everything that it checks held. It checks facts, never times: times are figures.

FOURWHEEL_FAKE=1 makes a drive a bind mount of its server's directory, to debug a trial without the program. Such a run
ends with 75 even when everything held.
"""

import argparse
import base64
import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import pathlib
import random
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

TOP = pathlib.Path(__file__).resolve().parents[2]
PROFILE = os.environ.get("FOURWHEEL_PROFILE", "debug")
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", TOP / "target")) / PROFILE
FAKE = os.environ.get("FOURWHEEL_FAKE") == "1"
TOOLS = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "fourwheel-test"
RCLONE = TOOLS / "venv/bin/rclone"
for name in ("rclone", "wsgidav"):
    os.environ.setdefault(f"FOURWHEEL_{name.upper()}", str(TOOLS / "venv/bin" / name))
os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin:/sbin"
os.environ["LC_ALL"] = "C.UTF-8"

# Time for a fact to become true on a slow, busy machine. Nothing is measured against it.
PATIENCE_S = 300


class Failure(Exception):
    """Something that must hold did not."""


class Skip(Exception):
    """This machine cannot run the trial; the reason is the text."""


def say(text):
    print(f"  {text}", file=sys.stderr, flush=True)


def figure(name, value, unit=""):
    if isinstance(value, float):
        value = f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
    print(f"{name}: {value}{' ' + unit if unit else ''}", flush=True)


def check(fact, what):
    if not fact:
        raise Failure(what)


def wait_for(what, fact, limit_s=PATIENCE_S, step_s=0.05):
    """Gives the first true value of `fact()`."""
    end = time.monotonic() + limit_s
    while True:
        value = fact()
        if value:
            return value
        if time.monotonic() > end:
            raise Failure(f"waited {limit_s} s for: {what}")
        time.sleep(step_s)


def run(*words, cwd=None, ok=(0,), limit_s=1800, env=None, text=True):
    """Runs a program to its end; its output, or a Failure with everything it said."""
    words = [os.fspath(w) for w in words]
    try:
        done = subprocess.run(words, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s,
                              text=text, errors="replace" if text else None)
    except subprocess.TimeoutExpired as e:
        raise Failure(f"{' '.join(words)}: not done after {limit_s} s") from e
    except FileNotFoundError as e:
        raise Failure(f"{words[0]} is missing: run scripts/setup") from e
    if done.returncode not in ok:
        raise Failure(f"{' '.join(words)} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def shell(script, *words, **options):
    return run("bash", "-euo", "pipefail", "-c", script, "bash", *words, **options)


def timed(action):
    """Seconds that `action` took, and what it gave."""
    start = time.monotonic()
    value = action()
    return time.monotonic() - start, value


def sha(path):
    state = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            state.update(piece)
    return state.hexdigest()


def noise(size, seed):
    """Bytes that do not compress and differ between seeds."""
    return random.Random(seed).randbytes(size)


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def children(pid):
    found = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/children") as file:
                found += [int(word) for word in file.read().split()]
    return sorted(found)


def send(pid, number):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def minor(path):
    """The minor device number of what is mounted at `path`, which is the number of its FUSE connection."""
    with open("/proc/self/mountinfo") as table:
        for line in reversed(table.readlines()):
            words = line.split(" ")
            if words[4].replace("\\040", " ") == str(path):
                return int(words[2].split(":")[1])
    return None


def detach(path):
    """Takes a mount away, whether or not what is mounted answers."""
    connection = minor(path)
    if connection is None:
        return
    with contextlib.suppress(OSError), open(f"/sys/fs/fuse/connections/{connection}/abort", "w") as file:
        file.write("1")
    if subprocess.run(["umount", "-l", path], stderr=subprocess.DEVNULL).returncode:
        subprocess.run(["fusermount3", "-uz", path], stderr=subprocess.DEVNULL)


class Netlab:
    """The proxy of tests/netlab before a port of loopback."""

    def __init__(self, trial, target, **settings):
        self.process = subprocess.Popen([TARGET / "examples/netlab", "--target", str(target)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        trial.callback(self.end)
        words = self.process.stdout.readline().split()
        check(len(words) == 4, "netlab did not say its ports (cargo build --example netlab)")
        # The zero of its log's seconds, to some milliseconds.
        self.started_at = time.time()
        self.port, self.control = int(words[1]), int(words[3])
        self.log_path = trial.home / f"netlab-{self.port}.log"
        if settings:
            self.set(**settings)

    def ask(self, target):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.control}{target}", timeout=20) as answer:
            return json.load(answer)

    def set(self, **settings):
        return self.ask("/set?" + urllib.parse.urlencode(settings))

    def stats(self):
        return self.ask("/stats")

    def reset(self):
        return self.ask("/reset")

    def log(self):
        """Starts a fresh log of requests."""
        self.ask(f"/log?file={self.log_path}")

    def requests(self):
        """(seconds, method, decoded target) of each request since `log()`."""
        found = []
        with open(self.log_path, errors="replace") as file:
            for line in file:
                words = line.split(" ")
                found.append((float(words[0]), words[1], urllib.parse.unquote(words[2])))
        return found

    def end(self):
        self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()
        self.process.wait()


class Server:
    """A real server on loopback, started by `cargo build --example serve`, or a plain folder.

    folder: where its bytes lie as files, or None. lines(port): the drive's config lines for the server behind `port`.
    """

    def __init__(self, trial, kind):
        self.trial, self.kind, self.process = trial, kind, None
        if kind == "folder":
            self.folder = trial.fresh("cloud")
            self.port = None
            return
        self.process = subprocess.Popen([TARGET / "examples/serve", kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=open(trial.home / f"serve-{kind}.log", "w"), text=True)
        trial.callback(self.end)
        line = self.process.stdout.readline()
        if not line and self.process.wait(60) == 75:
            raise Skip((trial.home / f"serve-{kind}.log").read_text().strip())
        check(line, f"the server {kind} did not start: {read(trial.home / f'serve-{kind}.log').decode(errors='replace')}")
        self.facts = json.loads(line)
        self.port = self.facts["port"]
        self.folder = pathlib.Path(self.facts["folder"]) if self.facts.get("folder") else None

    def lines(self, port=None):
        if self.kind == "folder":
            return f"type = \"folder\"\npath = {json.dumps(str(self.folder))}\n"
        return self.facts["config"].replace(f":{self.port}", f":{port or self.port}")

    @property
    def dav(self):
        return self.kind in ("apache", "nginx", "rclone", "wsgidav")

    def rclone(self, *words, **options):
        """Runs rclone as another client; `:fw:` in the words stands for the server's root."""
        check(RCLONE.exists(), "rclone is missing: run scripts/setup")
        config = self.trial.home / f"rclone-{self.kind}.conf"
        config.write_text(f"[fw]\n{self.rclone_section()}")
        root = "fw:" + ("" if self.kind == "folder" else self.facts["bucket"])
        words = [os.fspath(w).replace(":fw:", root + ("/" if root[-1] != ":" else "")) for w in words]
        return run(RCLONE, "--config", config, "--retries", "3", *words, **options)

    def rclone_section(self):
        if self.kind == "folder":
            return f"type = alias\nremote = {self.folder}\n"
        facts = self.facts
        if not self.facts["bucket"]:
            secret = run(RCLONE, "obscure", facts["password"]).strip()
            return f"type = webdav\nvendor = other\nurl = {facts['url']}\nuser = {facts['user']}\npass = {secret}\n"
        keys = "\n".join(f"{key} = {facts[key]}" for key in ("access_key_id", "secret_access_key", "region"))
        return f"type = s3\nprovider = Other\nforce_path_style = true\nendpoint = {facts['url']}\n{keys}\n"

    def http(self, method, name, body=None, headers=None):
        """One request of another WebDAV client, not through netlab: (status, headers, body)."""
        base = urllib.parse.urlsplit(self.facts["url"])
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        word = base64.b64encode(f"{self.facts['user']}:{self.facts['password']}".encode()).decode()
        headers = {"Authorization": f"Basic {word}"} | (headers or {})
        with contextlib.closing(line):
            line.request(method, base.path.rstrip("/") + "/" + urllib.parse.quote(name), body, headers)
            answer = line.getresponse()
            return answer.status, answer.headers, answer.read()

    def settled(self, *names):
        """Waits until the tags of files are strong: for a second after a write Apache answers 412 to its own tag."""
        if self.kind == "apache":
            strong = lambda: all(not self.http("HEAD", n)[1].get("ETag", "").startswith("W/") for n in names)
            wait_for("Apache's tags to be strong", strong, 30)

    def download(self, into):
        """Everything that the server holds, as another client sees it, into a new directory."""
        if self.folder:
            shutil.copytree(self.folder, into, symlinks=True, ignore=shutil.ignore_patterns(".~fourwheel*", ".DAV"))
        else:
            self.rclone("copy", "--transfers", "16", ":fw:", into)
        return into

    def give(self, path):
        """Gives what was made in the folder by hand to whom the server runs as."""
        if os.geteuid() == 0:
            owner = os.stat(self.folder)
            run("chown", "-R", f"{owner.st_uid}:{owner.st_gid}", path)

    def end(self):
        if self.process:
            self.process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
            self.process.kill()
            self.process.wait()


class Drive:
    """A drive on a machine of its own: empty state, cache and config. Mounted by the real binary."""

    def __init__(self, trial, lines, root=None, name="t", **keys):
        self.trial, self.name = trial, name
        self.home = trial.fresh("drive")
        # State and cache may lie on a disk of their own.
        self.disk = pathlib.Path(root or self.home)
        self.mount_point = trial.fresh("mnt")
        for folder in (self.home / "config/fourwheel", self.home / "run", self.disk / "state", self.disk / "cache"):
            folder.mkdir(parents=True)
        self.config = self.home / "config/fourwheel/config.toml"
        keys = {"write_back_s": 0.2} | keys
        text = lines + "".join(f"{k.replace('__', '.')} = {json.dumps(v)}\n" for k, v in keys.items())
        self.config.write_text(f"[drive.{name}]\n{text}")
        self.log_path = trial.home / f"{self.home.name}.log"
        self.keeper = None
        trial.callback(self.clear)

    def command(self, *words):
        return [os.fspath(w) for w in (TARGET / "fourwheel", *words)]

    @property
    def env(self):
        keys = {"XDG_CONFIG_HOME": self.home / "config", "XDG_RUNTIME_DIR": self.home / "run",
                "XDG_STATE_HOME": self.disk / "state", "XDG_CACHE_HOME": self.disk / "cache"}
        return os.environ | {key: str(folder) for key, folder in keys.items()}

    def call(self, *words, **options):
        """Runs a command of the program; its stdout."""
        return run(*self.command(*words), env=self.env, **options)

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def at(self, *names):
        return self.mount_point.joinpath(*names)

    def mount(self):
        """Mounts and waits until it answers; the seconds that took."""
        start = time.monotonic()
        if FAKE:
            folder = self.trial.fake_folder(self)
            run("mount", "--bind", folder, self.mount_point)
            return time.monotonic() - start
        with open(self.log_path, "ab") as log:
            self.keeper = subprocess.Popen(self.command("mount", self.name, self.mount_point), env=self.env,
                                           stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        def answers():
            code = self.keeper.poll()
            check(code is None, f"mount ended with {code}:\n{self.log()[-3000:]}")
            return minor(self.mount_point) is not None and self.status_or_none() is not None
        wait_for("the mount to answer", answers, 120, 0.02)
        return time.monotonic() - start

    def status_or_none(self):
        done = subprocess.run(self.command("status", "--json"), env=self.env, capture_output=True, text=True)
        try:
            found = json.loads(done.stdout)
        except ValueError:
            return None
        mounts = found.get("mounts", []) if isinstance(found, dict) else found
        return next((m for m in mounts if m.get("mountpoint") == str(self.mount_point)), None)

    def status(self):
        if FAKE:
            return {"pending_files": 0, "pending_bytes": 0, "failed": [], "conflicts": 0, "online": True, "cache_bytes": 0}
        found = self.status_or_none()
        check(found is not None, f"no status:\n{self.log()[-3000:]}")
        return found

    def wait_saved(self, limit_s=1800):
        if FAKE:
            return 0.0
        start = time.monotonic()
        try:
            self.call("wait", "--saved", "--timeout", str(limit_s), self.mount_point, limit_s=limit_s + 60)
        except Failure as e:
            raise Failure(f"{e}\nstatus: {self.status_or_none()}\nlog:\n{self.log()[-3000:]}") from e
        return time.monotonic() - start

    def worker(self):
        """The id of the process that serves the mount now."""
        return next((pid for pid in reversed(children(self.keeper.pid)) if alive(pid)), None)

    def kill_worker(self):
        """kill -9 of the worker; returns when another one runs."""
        if FAKE:
            return
        old = wait_for("a worker", self.worker, 60, 0.001)
        send(old, signal.SIGKILL)
        wait_for("a new worker", lambda: self.worker() not in (None, old), 60, 0.001)

    def kill_all(self):
        """kill -9 of keeper and worker together, as a crash would; the dead mount stays."""
        if self.keeper and self.keeper.poll() is None:
            # Stopped first: it would otherwise replace the worker, or tell it to end in good order.
            send(self.keeper.pid, signal.SIGSTOP)
            workers = children(self.keeper.pid)
            for pid in [*workers, self.keeper.pid]:
                send(pid, signal.SIGKILL)
            self.keeper.wait()
            wait_for("the killed workers' end", lambda: not any(alive(pid) for pid in workers), 60, 0.001)
        self.keeper = None

    def unmount(self):
        if FAKE:
            detach(self.mount_point)
            return
        self.call("unmount", self.mount_point, limit_s=120)
        code = self.keeper.wait(120)
        check(code == 0, f"mount ended with {code}:\n{self.log()[-3000:]}")
        self.keeper = None

    def clear(self):
        self.kill_all()
        detach(self.mount_point)

    def disk_bytes(self):
        """Bytes on disk of state and cache together, as du counts: a file that is moved from one to the other meanwhile only once."""
        blocks = {}
        for folder in (self.disk / "state", self.disk / "cache"):
            for at, _, names in os.walk(folder):
                for name in names:
                    with contextlib.suppress(FileNotFoundError):
                        found = os.lstat(os.path.join(at, name))
                        blocks[found.st_dev, found.st_ino] = found.st_blocks
        return sum(blocks.values()) * 512


class Trial(contextlib.ExitStack):
    """One run: its options, its directory, and the end of everything it started."""

    def __init__(self, what, remotes=(), default=None, options=()):
        super().__init__()
        parser = argparse.ArgumentParser(description=what)
        parser.add_argument("--quick", action="store_true", help="a shortened form, for scripts/test")
        parser.add_argument("--seed", type=int, default=None, help="repeats the choices of an earlier run")
        parser.add_argument("--keep", action="store_true", help="keeps the temporary directory and says where it is")
        parser.add_argument("--limit-s", type=int, default=3600, help="gives up after this many seconds (%(default)s)")
        if remotes:
            parser.add_argument("--remote", choices=remotes, action="append",
                                help=f"only this remote, may be repeated (default: {' '.join(default or remotes)})")
        for names, settings in options:
            parser.add_argument(names, **settings)
        self.options = parser.parse_args()
        self.quick = self.options.quick
        self.remotes = (self.options.remote or list(default or remotes)) if remotes else []
        self.seed = self.options.seed if self.options.seed is not None else random.SystemRandom().randrange(10**6)
        self.random = random.Random(self.seed)
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="fourwheel-trial-"))
        self.count = 0
        self.last_server = None

    def fresh(self, name):
        """A new empty directory."""
        self.count += 1
        path = self.home / f"{name}-{self.count}"
        path.mkdir()
        return path

    def server(self, kind):
        self.last_server = Server(self, kind)
        return self.last_server

    def fake_folder(self, drive):
        folder = self.last_server and self.last_server.folder
        if not folder:
            raise Skip("this remote has no folder that could be faked")
        return folder

    def part(self):
        """A scope whose servers, lines and drives end with it."""
        return _Part(self)


class _Part(contextlib.ExitStack):
    def __init__(self, trial):
        super().__init__()
        self.trial = trial

    def __getattr__(self, name):
        return getattr(self.trial, name)

    def server(self, kind):
        self.trial.last_server = Server(self, kind)
        return self.trial.last_server


def main(body, what, **settings):
    """Runs `body(trial)` and ends with what happened: 0 held, 1 failed, 75 skipped (or fake)."""
    trial = Trial(what, **settings)

    def stop(number, _frame):
        raise KeyboardInterrupt(signal.Signals(number).name)

    def give_up():
        print(f"FAILED: not done after {trial.options.limit_s} s", file=sys.stderr, flush=True)
        # Frees whoever hangs in a mount, so that the main thread gets to its end.
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    # A shell ignores SIGINT in what it starts in the background; the programs of a trial must not inherit that.
    signal.signal(signal.SIGINT, stop)
    watchdog = threading.Timer(trial.options.limit_s, give_up)
    watchdog.daemon = True
    watchdog.start()
    code = 0
    try:
        with trial:
            say(f"seed {trial.seed}{', quick' if trial.quick else ''}{', FAKE: no program' if FAKE else ''}")
            body(trial)
    except Failure as e:
        print(f"FAILED: {e}", file=sys.stderr)
        code = 1
    except Skip as e:
        print(f"SKIPPED: {e}", file=sys.stderr)
        code = 75
    except KeyboardInterrupt as e:
        print(f"FAILED: interrupted {e}", file=sys.stderr)
        code = 1
    finally:
        watchdog.cancel()
        if trial.options.keep:
            say(f"kept: {trial.home}")
        else:
            shutil.rmtree(trial.home, ignore_errors=True)
    if code == 0 and FAKE:
        print("held, but FAKE: the program was not there", file=sys.stderr)
        code = 75
    elif code == 0:
        print("held", file=sys.stderr)
    sys.exit(code)


def real_tree(into, files_min, bytes_max=600 << 20):
    """Copies a real source tree of at least `files_min` files with links and exec bits; gives (files, links, execs, bytes).

    The Rust standard library where its source is installed, then the crates that cargo unpacked and this system's files.
    """
    sysroot = pathlib.Path(run("rustc", "--print", "sysroot").strip())
    cargo = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo"))
    sources = [sysroot / "lib/rustlib/src/rust", pathlib.Path("/usr/share/perl"), pathlib.Path("/usr/share/zoneinfo"),
               pathlib.Path("/usr/lib/git-core"), *sorted(cargo.glob("registry/src/*/*")), pathlib.Path("/usr/lib/python3"),
               pathlib.Path("/usr/share/doc"), pathlib.Path("/usr/share")]
    files = links = execs = size = 0
    for number, source in enumerate(s for s in sources if s.is_dir()):
        if files >= files_min and links and execs:
            break
        for at, folders, names in os.walk(source):
            target = into / f"{number}-{source.name}" / os.path.relpath(at, source)
            target.mkdir(parents=True, exist_ok=True)
            for name in sorted(names) + [f for f in folders if os.path.islink(os.path.join(at, f))]:
                path = os.path.join(at, name)
                facts = os.lstat(path)
                regular = stat.S_ISREG(facts.st_mode)
                if not regular and not stat.S_ISLNK(facts.st_mode) or facts.st_size > 4 << 20 or size > bytes_max:
                    continue
                shutil.copy2(path, target / name, follow_symlinks=False)
                files, links = files + regular, links + (not regular)
                execs, size = execs + bool(regular and facts.st_mode & 0o100), size + facts.st_size
            if files >= files_min and links and execs:
                break
    check(files >= files_min, f"only {files} files found on this machine for the tree")
    return files, links, execs, size


def mixed_files(seed, count, total_max=60 << 20):
    """(name, bytes) of `count` files of mixed sizes: mostly small, some of megabytes."""
    chance = random.Random(seed)
    left = total_max
    for number in range(count):
        size = min(left, chance.choice([0, 17, 900, 4096, 5000, 20_000, 65_536, 100_000] * 15 + [1 << 20, 3_000_000]))
        left -= size
        yield f"d{number % 17:02}/f{number:04}", chance.randbytes(size)


def power_cut(mounted):
    """Ends an ext4 as a power cut would: nothing that was not on its device arrives there any more.

    The ioctl EXT4_IOC_SHUTDOWN without a log flush, as xfstests' godown does it: dirty pages and the open journal
    transaction are lost, every later call gets EIO. What the device was given counts as stored (its own cache is not
    modelled).
    """
    handle = os.open(mounted, os.O_RDONLY)
    try:
        fcntl.ioctl(handle, 0x8004587D, struct.pack("I", 2))
    finally:
        os.close(handle)
