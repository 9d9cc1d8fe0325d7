"""The module `waagent` that handlers of the 2.0 line load from `/usr/sbin/waagent`: logging, files,
commands, events.

Standard library only, Python 3.6 and later, nothing of the agent imported and nothing done when it
is loaded. Names, arguments and results are those that such handlers use, odd ones included.
"""

import os
import re
import subprocess
import tempfile
import time
import xml.sax.saxutils

LibDir = "/var/lib/waagent"
Openssl = "openssl"
GuestAgentName = "WALinuxAgent"
GuestAgentLongName = "Azure Linux Agent"
GuestAgentVersion = "WALinuxAgent-3.0.0"
ProtocolVersion = "2012-11-30"
Config = None
MyDistro = None
WaAgent = None
HttpProxyConfigString = ""
_PROVIDER = "69B669B9-4AF8-4C50-BDC4-6006FA76E975"


class Logger:
    """Writes lines to a file and to a console; what cannot be written is dropped."""

    def __init__(self, filepath, conpath, verbose=False):
        self.file_path, self.con_path, self.verbose = filepath, conpath, verbose

    def LogToFile(self, message):
        self._write(self.file_path, "a", message)

    def LogToCon(self, message):
        self._write(self.con_path, "w", message)

    def Log(self, message):
        self.LogWithPrefix("", message)

    def LogWithPrefix(self, prefix, message):
        stamp = time.strftime("%Y/%m/%d %H:%M:%S ", time.localtime()) + prefix
        for line in message.split("\n"):
            self.LogToFile(stamp + line)
            self.LogToCon(stamp + line)

    def NoLog(self, message):
        pass

    def ThrottleLog(self, counter):
        return self.Log if counter <= 3 else self.NoLog

    def LogIfVerbose(self, message):
        self.LogWithPrefixIfVerbose("", message)

    def LogWithPrefixIfVerbose(self, prefix, message):
        if self.verbose:
            self.LogWithPrefix(prefix, message)

    def Warn(self, message):
        self.LogWithPrefix("WARNING:", message)

    def Error(self, message):
        self.ErrorWithPrefix("", message)

    def ErrorWithPrefix(self, prefix, message):
        self.LogWithPrefix("ERROR:", prefix + message)

    def _write(self, path, mode, line):
        if not path:
            return
        plain = "".join(letter for letter in line if " " <= letter <= "~" or letter == "\t")
        try:
            with open(path, mode) as stream:
                stream.write(plain + "\n")
        except OSError:
            pass  # a log never fails a handler


def LoggerInit(log_file_path, log_con_path, verbose=False):
    """Log to these from now on; callers read the module's `Log`, `Error` … again afterwards."""
    global myLogger, Log, LogToConsole, LogToFile, LogWithPrefix, LogIfVerbose
    global LogWithPrefixIfVerbose, Error, ErrorWithPrefix, Warn, NoLog, ThrottleLog
    myLogger = Logger(log_file_path, log_con_path, verbose)
    Log, LogWithPrefix = myLogger.Log, myLogger.LogWithPrefix
    LogToFile, LogToConsole = myLogger.LogToFile, myLogger.LogToCon
    LogIfVerbose = myLogger.LogIfVerbose
    LogWithPrefixIfVerbose = myLogger.LogWithPrefixIfVerbose
    Error, ErrorWithPrefix, Warn = myLogger.Error, myLogger.ErrorWithPrefix, myLogger.Warn
    NoLog = myLogger.NoLog
    ThrottleLog = myLogger.ThrottleLog


LoggerInit(None, None)


def GetFileContents(filepath, asbin=False):
    """The text, or with ``asbin`` the bytes; None when it cannot be read."""
    try:
        with open(filepath, "rb") as stream:
            data = stream.read()
    except OSError as error:
        Error("Reading from file %s: %s" % (filepath, error))
        return None
    return data if asbin else data.decode("latin-1")


def SetFileContents(filepath, contents):
    """0, or None when it cannot be written."""
    return _write_contents(filepath, "wb", contents)


def AppendFileContents(filepath, contents):
    """0, or None when it cannot be written."""
    return _write_contents(filepath, "ab", contents)


def _write_contents(filepath, mode, contents):
    try:
        with open(filepath, mode) as stream:
            stream.write(_to_bytes(contents))
    except OSError as error:
        Error("Writing to file %s: %s" % (filepath, error))
        return None
    return 0


def _to_bytes(contents):
    return contents if isinstance(contents, bytes) else contents.encode("latin-1", "ignore")


def ReplaceFileContentsAtomic(filepath, contents):
    """None when it stands, 1 when it cannot be written: callers look for None."""
    try:
        handle, temporary = tempfile.mkstemp(dir=os.path.dirname(os.path.abspath(filepath)))
        try:
            os.write(handle, _to_bytes(contents))
        finally:
            os.close(handle)
        os.rename(temporary, filepath)
    except OSError as error:
        Error("Writing to file %s: %s" % (filepath, error))
        return 1
    return None


def GetLineStartingWith(prefix, filepath):
    """The first such line, or None."""
    for line in (GetFileContents(filepath) or "").split("\n"):
        if line.startswith(prefix):
            return line
    return None


def ReplaceStringInFile(fname, src, repl):
    """A regular expression replaced in every line."""
    lines = [re.sub(src, repl, line) for line in (GetFileContents(fname) or "").split("\n")]
    return ReplaceFileContentsAtomic(fname, "\n".join(lines))


def Run(cmd, chk_err=True):
    """A shell text's exit code."""
    return RunGetOutput(cmd, chk_err)[0]


def RunGetOutput(cmd, chk_err=True, log_cmd=True):
    """(exit code, what it printed, stderr included)."""
    return RunSendStdin(cmd, None, chk_err, log_cmd)


def RunSendStdin(cmd, input, chk_err=True, log_cmd=True, use_shell=True):
    """RunGetOutput with ``input`` (bytes) on stdin, which is never logged."""
    if log_cmd:
        LogIfVerbose(str(cmd))
    argv = ["/bin/sh", "-c", cmd] if use_shell else cmd
    pipes = {"stdin": subprocess.PIPE if input is not None else None, "stdout": subprocess.PIPE}
    done = subprocess.Popen(argv, stderr=subprocess.STDOUT, **pipes)
    data = None if input is None else _to_bytes(input)
    text, code = done.communicate(data)[0].decode("latin-1"), done.returncode
    if code and chk_err:
        Error("CalledProcessError.  Error Code is %d" % code)
        Error("CalledProcessError.  Command string was " + str(cmd))
        Error("CalledProcessError.  Command result was " + text[:-1])
    return code, text


def CreateDir(dirpath, user, mode):
    """The folder and those above it; owner and mode set."""
    if not os.path.isdir(dirpath):
        os.makedirs(dirpath)
    ChangeOwner(dirpath, user)
    os.chmod(dirpath, mode)


def ChangeOwner(filepath, user):
    """Give the file to ``user``; nothing when there is none."""
    import pwd

    try:
        owner = pwd.getpwnam(user)
        os.chown(filepath, owner.pw_uid, owner.pw_gid)
    except (KeyError, OSError) as error:
        Error("Cannot give %s to %s: %s" % (filepath, user, error))


class Distro:
    """This distribution, as far as handlers ask."""

    agent_config_file_path = "/etc/waagent.conf"

    def getConfigurationPath(self):
        return self.agent_config_file_path


def GetMyDistro(dist_class_name=""):
    """The same for all."""
    return Distro()


def DistInfo(fullname=0):
    """[id, version, codename] from os-release."""
    found = {}
    for line in (GetFileContents("/etc/os-release") or "").split("\n"):
        key, _, value = line.partition("=")
        found[key] = value.strip().strip("\"'")
    name = found.get("NAME" if fullname else "ID", "")
    return [name, found.get("VERSION_ID", ""), found.get("VERSION_CODENAME", "")]


class ConfigurationProvider:
    """`Name=value` lines of waagent.conf. Raises Exception without the file."""

    def __init__(self, walaConfigFile):
        path = walaConfigFile or GetMyDistro().getConfigurationPath()
        if not os.path.isfile(path):
            raise Exception("Missing configuration in %s" % path)
        self.values = {}
        for line in (GetFileContents(path) or "").split("\n"):
            key, equals, value = line.partition("=")
            if equals and not line.strip().startswith("#"):
                value = value.split("#")[0].strip().strip("\"'")
                self.values[key.strip()] = None if value == "None" else value

    def get(self, key):
        return self.values.get(key)

    def yes(self, key):
        return (self.get(key) or "").lower().startswith("y")

    def no(self, key):
        return (self.get(key) or "").lower().startswith("n")


class WALAEventOperation:
    """Words for AddExtensionEvent."""

    HeartBeat = "HeartBeat"
    Provision = "Provision"
    Install = "Install"
    UnIsntall = Uninstall = "UnInstall"
    Disable = "Disable"
    Enable = "Enable"
    Download = "Download"
    Upgrade = "Upgrade"
    Update = "Update"


def AddExtensionEvent(
    name, op, isSuccess, duration=0, version="1.0", message="", type="", isInternal=False
):
    """An event for the platform in `<LibDir>/events`; never raises."""
    rows = (
        ("Name", name, "wstr"),
        ("Version", version, "wstr"),
        ("IsInternal", isInternal, "bool"),
        ("Operation", op, "wstr"),
        ("OperationSuccess", isSuccess, "bool"),
        ("Message", message, "wstr"),
        ("Duration", duration, "uint64"),
        ("ExtensionType", type, "wstr"),
    )
    params = "".join(
        "<Param Name=%s Value=%s T=%s />"
        % tuple(xml.sax.saxutils.quoteattr(str(part)) for part in (key, value, "mt:" + kind))
        for key, value, kind in rows
    )
    text = '<Data><Provider id="%s"/><Event id="1"/>%s</Data>' % (_PROVIDER, params)
    folder = os.path.join(LibDir, "events")
    try:
        if not os.path.isdir(folder):
            os.mkdir(folder, 0o700)
        path = os.path.join(folder, "%d" % int(time.time() * 1000000))
        with open(path, "wb") as stream:
            stream.write(text.encode("utf-8", "replace"))
        os.rename(path, path + ".tld")
    except OSError as error:
        Error("Event is lost: %s" % error)
