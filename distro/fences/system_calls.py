"""The system calls that a sandbox looks at: their numbers, and what to call them.

Numbers are those of `asm/unistd_64.h` (x86-64) and `asm-generic/unistd.h` (aarch64); None where an
architecture lacks the call. Loaded by the shim of a `strict` operation: no typing, no ctypes.
"""

from __future__ import annotations

from waagent.protocol.base.records import Record

# linux/audit.h
X86_64, AARCH64 = 0xC000003E, 0xC00000B7
ARCHITECTURES = {"x86_64": X86_64, "aarch64": AARCH64}

DENY, CHANGE, OPEN, OPEN_HOW, CONNECT, SOCKET, TRACE = (
    "deny",
    "change",
    "open",
    "open_how",
    "connect",
    "socket",
    "trace",
)
"""What is done about a call; TRACE: only `default` looks at it, for the agent's own pids."""
AT_CWD = -1
"""A path that is relative to the working directory and to nothing else."""


class Call(Record):
    """One system call. ``at`` and ``path`` say which argument is the folder's descriptor and which
    the path; ``flags`` which one holds the open flags (or points to them).
    """

    name: str
    x86_64: int | None
    aarch64: int | None
    kind: str
    words: str = ""
    """What is denied, for a person."""
    at: int = AT_CWD
    path: int | None = None
    flags: int = 0

    def number(self, architecture: int) -> int | None:
        """Its number there."""
        return self.x86_64 if architecture == X86_64 else self.aarch64


CALLS: tuple[Call, ...] = (
    #    name                x86-64 aarch64 kind    words                       at       path flags
    Call("open",                2, None, OPEN,     "",                          AT_CWD,  0,   1),
    Call("openat",            257,   56, OPEN,     "",                          0,       1,   2),
    Call("openat2",           437,  437, OPEN_HOW, "",                          0,       1,   2),
    Call("creat",              85, None, CHANGE,   "write",                     AT_CWD,  0),
    Call("truncate",           76,   45, CHANGE,   "write",                     AT_CWD,  0),
    Call("mkdir",              83, None, CHANGE,   "make",                      AT_CWD,  0),
    Call("mkdirat",           258,   34, CHANGE,   "make",                      0,       1),
    Call("mknod",             133, None, CHANGE,   "make",                      AT_CWD,  0),
    Call("mknodat",           259,   33, CHANGE,   "make",                      0,       1),
    Call("symlink",            88, None, CHANGE,   "make",                      AT_CWD,  1),
    Call("symlinkat",         266,   36, CHANGE,   "make",                      1,       2),
    Call("link",               86, None, CHANGE,   "make",                      AT_CWD,  1),
    Call("linkat",            265,   37, CHANGE,   "make",                      2,       3),
    Call("unlink",             87, None, CHANGE,   "remove",                    AT_CWD,  0),
    Call("unlinkat",          263,   35, CHANGE,   "remove",                    0,       1),
    Call("rmdir",              84, None, CHANGE,   "remove",                    AT_CWD,  0),
    Call("rename",             82, None, CHANGE,   "rename to",                 AT_CWD,  1),
    Call("renameat",          264,   38, CHANGE,   "rename to",                 2,       3),
    Call("renameat2",         316,  276, CHANGE,   "rename to",                 2,       3),
    Call("chmod",              90, None, CHANGE,   "change the mode of",        AT_CWD,  0),
    Call("fchmodat",          268,   53, CHANGE,   "change the mode of",        0,       1),
    Call("chown",              92, None, CHANGE,   "change the owner of",       AT_CWD,  0),
    Call("fchownat",          260,   54, CHANGE,   "change the owner of",       0,       1),
    Call("connect",            42,  203, CONNECT,  "connect"),
    Call("socket",             41,  198, SOCKET,   "socket"),
    Call("socketpair",         53,  199, SOCKET,   "socket"),
    Call("mount",             165,   40, DENY,     "mount",                     AT_CWD,  1),
    Call("umount2",           166,   39, DENY,     "unmount",                   AT_CWD,  0),
    Call("pivot_root",        155,   41, DENY,     "change the root",           AT_CWD,  0),
    Call("chroot",            161,   51, DENY,     "change the root",           AT_CWD,  0),
    Call("open_tree",         428,  428, DENY,     "mount",                     0,       1),
    Call("move_mount",        429,  429, DENY,     "mount"),
    Call("fsopen",            430,  430, DENY,     "mount"),
    Call("fsconfig",          431,  431, DENY,     "mount"),
    Call("fsmount",           432,  432, DENY,     "mount"),
    Call("fspick",            433,  433, DENY,     "mount",                     0,       1),
    Call("mount_setattr",     442,  442, DENY,     "remount",                   0,       1),
    Call("open_tree_attr",    467,  467, DENY,     "mount",                     0,       1),
    Call("setns",             308,  268, DENY,     "enter a namespace"),
    Call("unshare",           272,   97, DENY,     "make a namespace"),
    Call("clone",              56,  220, DENY,     "make a namespace"),
    Call("ptrace",            101,  117, DENY,     "trace a process"),
    Call("process_vm_readv",  310,  270, DENY,     "read a process's memory"),
    Call("process_vm_writev", 311,  271, DENY,     "write a process's memory"),
    Call("pidfd_getfd",       438,  438, DENY,     "take a process's descriptor"),
    Call("pidfd_open",        434,  434, TRACE,    "open a process"),
    Call("kcmp",              312,  272, DENY,     "compare processes"),
    Call("init_module",       175,  105, DENY,     "load a kernel module"),
    Call("finit_module",      313,  273, DENY,     "load a kernel module"),
    Call("delete_module",     176,  106, DENY,     "unload a kernel module"),
    Call("kexec_load",        246,  104, DENY,     "load another kernel"),
    Call("kexec_file_load",   320,  294, DENY,     "load another kernel"),
    Call("bpf",               321,  280, DENY,     "bpf"),
    Call("perf_event_open",   298,  241, DENY,     "perf events"),
    Call("userfaultfd",       323,  282, DENY,     "userfaultfd"),
    Call("io_uring_setup",    425,  425, DENY,     "io_uring"),
    Call("add_key",           248,  217, DENY,     "kernel keys"),
    Call("request_key",       249,  218, DENY,     "kernel keys"),
    Call("keyctl",            250,  219, DENY,     "kernel keys"),
    Call("iopl",              172, None, DENY,     "input and output ports"),
    Call("ioperm",            173, None, DENY,     "input and output ports"),
    Call("swapon",            167,  224, DENY,     "swap"),
    Call("swapoff",           168,  225, DENY,     "swap"),
    Call("reboot",            169,  142, DENY,     "reboot"),
    Call("settimeofday",      164,  170, DENY,     "set the clock"),
    Call("clock_settime",     227,  112, DENY,     "set the clock"),
    Call("sethostname",       170,  161, DENY,     "set the host name"),
    Call("setdomainname",     171,  162, DENY,     "set the host name"),
    Call("acct",              163,   89, DENY,     "process accounting"),
    Call("quotactl",          179,   60, DENY,     "quotas"),
    Call("syslog",            103,  116, DENY,     "the kernel's log"),
    Call("name_to_handle_at", 303,  264, DENY,     "file handles"),
    Call("open_by_handle_at", 304,  265, DENY,     "file handles"),
)  # fmt: skip

CLONE3 = Call("clone3", 435, 435, DENY)
"""Its flags lie where a filter cannot look: answered as a kernel that lacks it, and libc takes
clone instead.
"""
BY_NAME = {call.name: call for call in (*CALLS, CLONE3)}
