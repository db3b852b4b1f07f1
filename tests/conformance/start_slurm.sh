#!/usr/bin/env bash
# Start a Slurm of one node on this machine, with Debian's packages, for the tests that need a real
# one. Does nothing where one answers, and ends with 1 and a reason where none can be had.
set -uo pipefail
no() { echo "no Slurm: $*" >&2; exit 1; }

sinfo >/dev/null 2>&1 && exit 0
[ "$(id -u)" = 0 ] || no "who starts it must be root"
if ! command -v slurmctld >/dev/null || ! command -v munged >/dev/null; then
  command -v apt-get >/dev/null || no "there is no apt-get"
  export DEBIAN_FRONTEND=noninteractive
  timeout 60 apt-get -qq update >/dev/null 2>&1 || no "apt-get finds no packages"
  timeout 300 apt-get -qq install -y --no-install-recommends slurm-wlm munge >/dev/null 2>&1 ||
    no "apt-get cannot install slurm-wlm and munge"
fi

host=$(hostname -s)
config=/etc/slurm/slurm.conf
[ -e "$config" ] && ! grep -q lrexp-tests "$config" && no "$config is somebody's"
mkdir -p /etc/slurm /run/munge /var/lib/slurm-lrexp/{ctld,d} /var/log/slurm-lrexp
cat >"$config" <<END
ClusterName=lrexp-tests
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MaxArraySize=4
MinJobAge=10
AuthInfo=cred_expire=2
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1,bf_interval=1
StateSaveLocation=/var/lib/slurm-lrexp/ctld
SlurmdSpoolDir=/var/lib/slurm-lrexp/d
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile=/var/log/slurm-lrexp/ctld.log
SlurmdLogFile=/var/log/slurm-lrexp/d.log
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc)
PartitionName=debug Nodes=$host Default=YES MaxTime=INFINITE OverTimeLimit=0 State=UP
END
chown munge: /run/munge && chmod 0755 /run/munge
pgrep -x munged >/dev/null || su munge -s /bin/sh -c "munged --force" || no "munged does not start"
pgrep -x slurmctld >/dev/null || slurmctld || no "slurmctld does not start"
pgrep -x slurmd >/dev/null || slurmd || no "slurmd does not start"
for _ in $(seq 60); do
  sinfo -h -o %T 2>/dev/null | grep -q idle && exit 0
  sleep 0.5
done
no "the node does not get idle: $(tail -n 3 /var/log/slurm-lrexp/*.log)"
