#!/bin/bash
# slurm_up.sh DIR NODES GPUS: a real Slurm of NODES nodes with GPUS made-up GPUs each, on this one host.
# Everything of it lies in DIR; it listens on loopback only. Then: export SLURM_CONF=DIR/slurm.conf
# Ends it: slurm_down.sh DIR. Needs root and Debian's munge, slurmctld, slurmd, slurm-client.
set -euo pipefail
dir=$(realpath -m "$1") nodes=$2 gpus=$3
port=$((20000 + $$ % 20000))
host=$(hostname -s)
mkdir -p "$dir"/{state,spool,log,run,dev,munge}
chmod 755 "$dir" "$dir"/{state,spool,log,run,dev}
chmod 711 "$dir/munge"
head -c 1024 /dev/urandom >"$dir/munge/munge.key"
chmod 400 "$dir/munge/munge.key"
munged --force --key-file="$dir/munge/munge.key" --socket="$dir/munge/munge.sock" --pid-file="$dir/run/munged.pid" \
    --log-file="$dir/munge/munged.log" --seed-file="$dir/munge/munged.seed"
# Slurm wants character devices, else a job gets no CUDA_VISIBLE_DEVICES; its number is the name's last one.
for gpu in $(seq 0 $((gpus - 1))); do
    mknod "$dir/dev/nvidia$gpu" c 1 3 2>/dev/null || ln -s /dev/null "$dir/dev/nvidia$gpu"
done
# With a writable freezer Slurm kills whole trees; without it only what it knows by its parents.
track=proctrack/linuxproc
if mkdir -p /sys/fs/cgroup/freezer/probe.$$ 2>/dev/null && rmdir /sys/fs/cgroup/freezer/probe.$$; then
    track=proctrack/cgroup
    printf '%s\n' CgroupPlugin=cgroup/v1 CgroupMountpoint=/sys/fs/cgroup ConstrainCores=no ConstrainDevices=no \
        ConstrainRAMSpace=no >"$dir/cgroup.conf"
fi
cat >"$dir/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$dir/munge/munge.sock
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/slurmd-%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd-%n.log
ProctrackType=$track
TaskPlugin=task/none
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=20
MinJobAge=2
KillWait=3
GresTypes=gpu
NodeName=n[1-$nodes] NodeHostname=$host NodeAddr=127.0.0.1 Port=[$((port + 1))-$((port + nodes))] CPUs=4 RealMemory=4000 Gres=gpu:$gpus State=UNKNOWN
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
last=$((gpus - 1))
echo "NodeName=n[1-$nodes] Name=gpu File=$dir/dev/nvidia$([ "$last" = 0 ] && echo 0 || echo "[0-$last]")" >"$dir/gres.conf"
export SLURM_CONF="$dir/slurm.conf"
slurmctld -c
for node in $(seq 1 "$nodes"); do
    slurmd -N "n$node"
done
while [ "$SECONDS" -lt 80 ]; do # a quiet machine needs one or two; on a busy one a node has missed 20
    idle=$(sinfo -h -N -t idle -o %N 2>/dev/null | sort -u | wc -l || true)
    [ "$idle" = "$nodes" ] && exit 0
    sleep 0.1
done
sinfo -N >&2
exit 1
