"""A Slurm cluster of several nodes on one machine, which leaves nothing behind.

The test runs in namespaces of its own (mount, host name, network, processes), and each node in another set below
these: own host name, address, /tmp and /dev/shm, so that MPI sees different machines. Nothing can clash with
another cluster on this machine, and when the test ends, however it ends, the kernel ends every process of the
cluster and drops its mounts and its network.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys

from harness import BIN, ROOT
from waiting import wait_for

INSIDE = "CAIRN_CLUSTER_INSIDE"
SKIPPED = 77  # SKIP_RETURN_CODE in tests/CMakeLists.txt
NAMESPACES = ["--mount", "--uts", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "ip")
HOME = pathlib.Path("/run/cluster")  # in a tmpfs of the cluster's own
NETWORK = "10.77.0"

CONFIGURATION = f"""
ClusterName=cairn
SlurmctldHost=control({NETWORK}.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={HOME}/munge.socket,cred_expire=5
StateSaveLocation={HOME}/state
SlurmdSpoolDir={HOME}/spool-%n
SlurmctldPidFile={HOME}/slurmctld.pid
SlurmdPidFile={HOME}/slurmd-%n.pid
SlurmctldLogFile={HOME}/log/slurmctld.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MpiDefault=pmix
JobRequeue=1
ReturnToService=2
SchedulerParameters=sched_min_interval=100000,sched_interval=2,batch_sched_delay=0,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
KillWait=5
SlurmdTimeout=45
"""


def enter_namespaces():
    """Goes on in namespaces of this program's own; called before anything else. Skips where that is forbidden."""
    if os.environ.get(INSIDE):
        reap()
        return
    command = ["unshare", *NAMESPACES]
    probe = subprocess.run([*command, "mount", "-t", "tmpfs", "tmpfs", "/run"], capture_output=True, text=True)
    if probe.returncode != 0:
        print(f"SKIP: NOT TESTED on a Slurm cluster: it needs root and namespaces: {probe.stderr.strip()}",
              file=sys.stderr)
        sys.exit(SKIPPED)
    os.execvpe("unshare", [*command, sys.executable, *sys.argv], {**os.environ, INSIDE: "1"})


def reap():
    """The first process of a namespace inherits orphans: it only waits, and a child of it goes on."""
    child = os.fork()
    if child == 0:
        return
    while True:
        pid, status = os.wait()
        if pid == child:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def call(*words, timeout=60, check=True, **more):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=timeout,
                          stdin=subprocess.DEVNULL, **more)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, words))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


NODE = r"""
set -eu
name=$1 address=$2 home=$3; shift 3
hostname "$name"
# What lies below /tmp or /dev/shm stays visible under the node's own.
kept=0
for tree; do
  kept=$((kept + 1)); mkdir -p "$home/kept-$name-$kept"; mount --bind "$tree" "$home/kept-$name-$kept"
done
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /dev/shm
chmod 1777 /tmp /dev/shm
kept=0
for tree; do
  kept=$((kept + 1)); mkdir -p "$tree"; mount --bind "$home/kept-$name-$kept" "$tree"
done
ip link set lo up
echo ready
read -r _
ip addr add "$address/24" dev eth0
ip link set eth0 up
slurmd -D -N "$name" & wait
"""


class Cluster:
    """`nodes` nodes n1, n2, ... in three partitions.

    Jobs of `urgent` preempt those of `main`, which have half a minute to end, and of `abrupt`, which have not.
    """

    def __init__(self, nodes):
        missing = [program for program in PROGRAMS if shutil.which(program) is None]
        if missing:
            raise AssertionError(f"{', '.join(missing)}: not installed; jobs/setup.sh installs what the tests need")
        self.names = [f"n{i + 1}" for i in range(nodes)]
        self.inits = {}
        self.networks = []  # of nodes without processes, open
        self.environment = {**os.environ, "SLURM_CONF": str(HOME / "slurm.conf")}
        self.environment.pop(INSIDE)

    def address(self, name):
        return f"{NETWORK}.{10 + self.names.index(name)}"

    def start(self):
        call("mount", "-t", "tmpfs", "tmpfs", "/run")
        for folder in ("state", "log", "runs"):
            (HOME / folder).mkdir(parents=True)
        self.configure()
        call("hostname", "control")
        call("ip", "link", "set", "lo", "up")
        call("ip", "link", "add", "switch", "type", "bridge")
        call("ip", "addr", "add", f"{NETWORK}.1/24", "dev", "switch")
        call("ip", "link", "set", "switch", "up")
        call("munged", "--force", f"--key-file={HOME}/munge.key", f"--socket={HOME}/munge.socket",
             f"--pid-file={HOME}/munged.pid", f"--log-file={HOME}/log/munged.log",
             f"--seed-file={HOME}/munge.seed")
        call("slurmctld", env=self.environment)
        for name in self.names:
            self.start_node(name)
        self.wait_until_idle(self.names)

    def configure(self):
        lines = [CONFIGURATION.strip()]
        lines += [f"NodeName={name} NodeAddr={self.address(name)} CPUs=8 RealMemory=4000" for name in self.names]
        nodes = ",".join(self.names)
        lines += [f"PartitionName=main Nodes={nodes} Default=YES State=UP PriorityTier=1 GraceTime=30",
                  f"PartitionName=abrupt Nodes={nodes} State=UP PriorityTier=1 GraceTime=0",
                  f"PartitionName=urgent Nodes={nodes} State=UP PriorityTier=10"]
        (HOME / "slurm.conf").write_text("\n".join(lines) + "\n")
        hosts = [f"127.0.0.1 localhost", f"{NETWORK}.1 control"]
        (HOME / "hosts").write_text("\n".join(hosts + [f"{self.address(n)} {n}" for n in self.names]) + "\n")
        call("mount", "--bind", HOME / "hosts", "/etc/hosts")
        key = HOME / "munge.key"
        key.touch(0o600)
        key.write_bytes(os.urandom(1024))

    def start_node(self, name):
        (HOME / f"spool-{name}").mkdir(exist_ok=True)
        kept = [tree for tree in dict.fromkeys((ROOT, BIN.resolve().parent))
                if str(tree).startswith(("/tmp/", "/dev/shm/"))]
        with (HOME / "log" / f"{name}.log").open("ab") as log:
            init = subprocess.Popen(["unshare", *NAMESPACES, "bash", "-c", NODE, "node", name, self.address(name),
                                     HOME, *kept], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                                    env=self.environment)
        self.inits[name] = init
        if init.stdout.readline() != b"ready\n":
            raise AssertionError(f"node {name} did not start:\n{(HOME / 'log' / f'{name}.log').read_text()}")
        call("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", init.pid)
        call("ip", "link", "set", name, "master", "switch", "up")
        init.stdin.write(b"\n")
        init.stdin.flush()

    def lose_node(self, name):
        """As if its power was cut: nothing leaves the node any more, not even the end of a connection."""
        call("ip", "link", "del", name)
        self.end(self.inits.pop(name))

    def crash_node(self, name):
        """All its processes die, and the kernel lives on and ends their connections."""
        init = self.inits.pop(name)
        self.networks.append(os.open(f"/proc/{init.pid}/ns/net", os.O_RDONLY))
        self.end(init)

    def end(self, init):
        init.kill()
        init.communicate()

    def stop(self):
        for init in self.inits.values():
            self.end(init)
        for daemon in ("slurmctld", "munged"):
            os.kill(int((HOME / f"{daemon}.pid").read_text()), signal.SIGTERM)

    def wait_until_idle(self, names):
        def idle():
            states = call("sinfo", "-h", "-N", "-n", ",".join(names), "-p", "main", "-o", "%T",
                          env=self.environment).split()
            return states == ["idle"] * len(names)
        wait_for(f"nodes {names} idle", idle, 60)

    def command(self, *words, **more):
        return call(*words, env={**self.environment, **more.pop("env", {})}, **more)

    def logs(self):
        texts = []
        for log in sorted((HOME / "log").iterdir()):
            texts.append(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}")
        return "\n".join(texts)
