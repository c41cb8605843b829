#!/usr/bin/env bash
# A SLURM cluster on this machine: slurmctld, slurmd and munge on loopback, as root, with one node or as many as
# `cluster.sh start NODES` says. Debian: apt-get install slurm-wlm munge. `start` prints the variable that the
# commands of SLURM need (eval it); `cluster.sh stop` ends it. State lies in SLURM_ONE_NODE (/tmp/slurm-one-node).
set -euo pipefail
state=${SLURM_ONE_NODE:-/tmp/slurm-one-node}
conf=$state/slurm.conf
host=$(hostname -s)
port=${SLURM_ONE_NODE_PORT:-16817}  # of slurmctld; the nodes have the next ones

stop() {
  for file in "$state"/slurmd*.pid "$state/slurmctld.pid" "$state/munged.pid"; do
    if [ -f "$file" ]; then kill "$(cat "$file")" 2>/dev/null || true; fi
  done
}

start() {
  local nodes=$1 cpus memory
  cpus=$(nproc)
  memory=$(awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
  mkdir -p "$state"/{ctld,slurmd,munge,log}
  chmod 755 "$state" "$state/munge"
  if [ ! -f "$state/munge/key" ]; then
    dd if=/dev/urandom bs=1 count=1024 of="$state/munge/key" status=none
    chmod 400 "$state/munge/key"
  fi
  munged --force --key-file="$state/munge/key" --socket="$state/munge/socket" --pid-file="$state/munged.pid" \
    --seed-file="$state/munge/seed" --log-file="$state/log/munged.log"
  cat > "$conf" <<CONF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$state/munge/socket
SlurmctldPort=$port
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd-%n.pid
SlurmctldLogFile=$state/log/slurmctld.log
SlurmdLogFile=$state/log/slurmd-%n.log
StateSaveLocation=$state/ctld
SlurmdSpoolDir=$state/slurmd/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
SwitchType=switch/none
JobRequeue=1
KillWait=15
MinJobAge=3600
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=1
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
$(for i in $(seq "$nodes"); do
  echo "NodeName=node$i NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + i)) CPUs=$(((cpus + nodes - 1) / nodes)) RealMemory=$((memory / nodes)) State=UNKNOWN"
done)
PartitionName=local Nodes=node[1-$nodes] Default=YES MaxTime=INFINITE State=UP
CONF
  export SLURM_CONF=$conf
  slurmctld -c
  for i in $(seq "$nodes"); do
    mkdir -p "$state/slurmd/node$i"
    slurmd -c -N "node$i"
  done
  for _ in $(seq 60); do
    if [ "$(sinfo -h -N -t idle -o %N 2>/dev/null | wc -l)" = "$nodes" ]; then
      echo "export SLURM_CONF=$conf"
      return
    fi
    sleep 0.5
    scontrol update nodename="node[1-$nodes]" state=resume 2>/dev/null || true
  done
  echo "not all nodes came up; see $state/log" >&2
  exit 1
}

case ${1:-} in
  start) start "${2:-1}" ;;
  stop) stop ;;
  *) echo "usage: cluster.sh start [NODES]|stop" >&2; exit 2 ;;
esac
