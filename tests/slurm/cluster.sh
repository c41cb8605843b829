#!/usr/bin/env bash
# A SLURM cluster of one node on this machine: slurmctld, slurmd and munge on loopback, as root.
# Debian: apt-get install slurm-wlm munge. `cluster.sh start` prints the variable that the commands
# of SLURM need (eval it); `cluster.sh stop` ends it. State lies in SLURM_ONE_NODE (/tmp/slurm-one-node).
set -euo pipefail
state=${SLURM_ONE_NODE:-/tmp/slurm-one-node}
conf=$state/slurm.conf
node=$(hostname -s)

stop() {
  for daemon in slurmd slurmctld munged; do
    if [ -f "$state/$daemon.pid" ]; then kill "$(cat "$state/$daemon.pid")" 2>/dev/null || true; fi
  done
}

start() {
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
SlurmctldHost=$node(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$state/munge/socket
SlurmctldPort=${SLURM_ONE_NODE_PORT:-16817}
SlurmdPort=$((${SLURM_ONE_NODE_PORT:-16817} + 1))
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd.pid
SlurmctldLogFile=$state/log/slurmctld.log
SlurmdLogFile=$state/log/slurmd.log
StateSaveLocation=$state/ctld
SlurmdSpoolDir=$state/slurmd
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
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=local Nodes=$node Default=YES MaxTime=INFINITE State=UP
CONF
  export SLURM_CONF=$conf
  slurmctld -c
  slurmd -c -N "$node"
  for _ in $(seq 60); do
    if sinfo -h -o %t 2>/dev/null | grep -q idle; then
      echo "export SLURM_CONF=$conf"
      return
    fi
    sleep 0.5
    scontrol update nodename="$node" state=resume 2>/dev/null || true
  done
  echo "the node did not come up; see $state/log" >&2
  exit 1
}

case ${1:-} in
  start) start ;;
  stop) stop ;;
  *) echo "usage: cluster.sh start|stop" >&2; exit 2 ;;
esac
