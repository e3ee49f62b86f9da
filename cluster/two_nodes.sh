#!/usr/bin/env bash
# A Ray cluster on machines of your own: a head on one, workers on the others, with an access token everywhere.
set -euo pipefail

help() {
    cat <<'TEXT'
Start a Ray head on this machine, join a head as a worker, or stop what this script started here.

  two_nodes.sh head [options]
  two_nodes.sh worker HEAD:PORT --role score|train [options]
  two_nodes.sh stop [--name NAME]

Example, two machines:

  first$   cluster/two_nodes.sh head --node-ip 10.0.0.1 --role train
  first$   scp ~/.zpd-ray/token second:.zpd-ray/token     # a secret: never by mail or chat
  second$  cluster/two_nodes.sh worker 10.0.0.1:6379 --node-ip 10.0.0.2 --role score
  first$   RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=~/.zpd-ray/token \
             zpd-ray run run.toml --set cluster.address=10.0.0.1:6379
  each$    cluster/two_nodes.sh stop

Options:
  --role ROLE        label the node zpd-ray=ROLE, for cluster.placement = "split"; a worker needs one
  --node-ip ADDR     address of this machine that the other nodes reach (default: Ray chooses)
  --token FILE       the token (default: $RAY_AUTH_TOKEN_PATH, else ~/.zpd-ray/token); the head makes one
                     if there is none, a worker does not start without it
  --port N           head: port that nodes and clients connect to (default 6379)
  --dashboard-port N head: port of the dashboard, on loopback alone (default 8265)
  --port-base N      this node's other ports are N to N+499 (default 20000); open these and --port between the
                     nodes and to nobody else; two nodes on one machine need two bases
  --cpus N, --gpus N what this node offers (default: what Ray finds)
  --object-store N   bytes of the shared-memory object store (default: Ray's, 30 % of memory)
  --temp-dir DIR     head: where Ray keeps sessions and logs (default /tmp/ray); at most 40 characters
  --name NAME        what this node is called by stop (default: head or worker)
  --help
TEXT
}

fail() {
    echo "two_nodes.sh: $*" >&2
    exit 2
}

# What was started is remembered here: NAME.pid has the session of its processes, NAME.log what it printed.
state=${ZPD_RAY_STATE:-$HOME/.zpd-ray}
token=${RAY_AUTH_TOKEN_PATH:-$HOME/.zpd-ray/token}
command=${1:-}
[[ $# -eq 0 ]] || shift
address='' role='' node_ip='' port=6379 dashboard_port=8265 port_base=20000 cpus='' gpus='' name=''
object_store='' temp_dir=''

read_options() {
    if [[ $command == worker && ${1:-} != --* ]]; then
        address=${1:-}
        [[ $# -eq 0 ]] || shift
    fi
    while [[ $# -gt 0 ]]; do
        [[ $1 != --help ]] || { help; exit 0; }
        [[ $# -ge 2 ]] || fail "got '$1' without a value; see --help"
        case $1 in
            --role) role=$2 ;;
            --node-ip) node_ip=$2 ;;
            --token) token=$2 ;;
            --port) port=$2 ;;
            --dashboard-port) dashboard_port=$2 ;;
            --port-base) port_base=$2 ;;
            --cpus) cpus=$2 ;;
            --gpus) gpus=$2 ;;
            --object-store) object_store=$2 ;;
            --temp-dir) temp_dir=$2 ;;
            --name) name=$2 ;;
            *) fail "unknown option '$1'; see --help" ;;
        esac
        shift 2
    done
    check_options
}

check_options() {
    [[ $role =~ ^(score|train)?$ ]] || fail "--role is score or train, got '$role'"
    [[ $name =~ ^[A-Za-z0-9_-]*$ ]] || fail "--name takes letters, digits, - and _, got '$name'"
    local number
    for number in "$port" "$dashboard_port" "$port_base"; do
        [[ $number =~ ^[1-9][0-9]{3,4}$ ]] || fail "a port is a number from 1024 on, got '$number'"
    done
    # Ray's sockets lie some 60 characters below it, and a Unix socket's path has at most 107.
    [[ ${#temp_dir} -le 40 ]] || fail "--temp-dir has at most 40 characters, got '$temp_dir'"
}

# A token in the environment can be read by whoever reads /proc, and Ray would prefer it to the file.
use_token() {
    unset RAY_AUTH_TOKEN
    export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token
    local mode
    mode=$(stat -L -c %a "$token")
    [[ $mode =~ 00$ ]] || fail "others can read the token $token (mode $mode); chmod 600 $token"
}

make_token() {
    [[ ! -s $token ]] || return 0
    (
        umask 077
        mkdir -p "$(dirname "$token")"
        od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$token"
    )
    echo "made an access token: $token; copy it to every node, readable by you alone"
}

# Fixed ports, so that a firewall can name them and two nodes fit on one machine.
ports() {
    local base=$port_base
    echo --node-manager-port="$base" --object-manager-port=$((base + 1)) \
        --dashboard-agent-listen-port=$((base + 2)) --dashboard-agent-grpc-port=$((base + 3)) \
        --metrics-export-port=$((base + 4)) --runtime-env-agent-port=$((base + 5)) \
        --min-worker-port=$((base + 10)) --max-worker-port=$((base + 499))
}

common() {
    ports
    [[ -z $node_ip ]] || echo "--node-ip-address=$node_ip"
    [[ -z $role ]] || echo "--labels=zpd-ray=$role"
    [[ -z $cpus ]] || echo "--num-cpus=$cpus"
    [[ -z $gpus ]] || echo "--num-gpus=$gpus"
    [[ -z $object_store ]] || echo "--object-store-memory=$object_store"
}

start_head() {
    name=${name:-head}
    make_token
    use_token
    # Jobs go through the dashboard: nothing but this machine reaches it. Ray Client is on a port of ours.
    local own=(--head --port="$port" --dashboard-host=127.0.0.1 --dashboard-port="$dashboard_port"
        --ray-client-server-port=$((port_base + 6)))
    [[ -z $temp_dir ]] || own+=(--temp-dir="$temp_dir")
    start "${own[@]}"
    echo "head '$name' is up on port $port; on the others: two_nodes.sh worker HEAD:$port --role score"
    echo "clients: export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token"
}

start_worker() {
    name=${name:-worker}
    [[ $address =~ ^[^:]+:[0-9]+$ ]] || fail "worker needs the head's HEAD:PORT, got '$address'; see --help"
    [[ -n $role ]] || fail "worker needs --role score or --role train"
    [[ -z $temp_dir ]] || fail "--temp-dir is the head's; workers take over its path"
    [[ -s $token ]] || fail "no token at $token; copy the head's to there, mode 600, or give --token FILE"
    use_token
    start --address="$address"
    echo "worker '$name' (zpd-ray=$role) has joined $address"
}

# Ray in a session of processes of its own, which is how stop tells them from other Rays' on the machine.
start() {
    local -a options
    read -r -a options <<< "$(common | tr '\n' ' ')"
    mkdir -p "$state"
    [[ -z $(members) ]] || fail "'$name' is running; stop it first, or give another --name"
    local mark="$command-$$-$RANDOM$RANDOM"
    ZPD_RAY_NODE=$mark RAY_USAGE_STATS_ENABLED=${RAY_USAGE_STATS_ENABLED:-0} \
        setsid nohup ray start --block "$@" "${options[@]}" < /dev/null > "$state/$name.log" 2>&1 &
    local pid=$! waited
    echo "$pid $mark" > "$state/$name.pid"
    for ((waited = 0; waited < 240; waited++)); do
        ! grep -q 'Ray runtime started' "$state/$name.log" || return 0
        kill -0 "$pid" 2> /dev/null || break
        sleep 0.5
    done
    tail -n 20 "$state/$name.log" >&2
    stop_one
    fail "Ray did not start; its last words are above, all of them in $state/$name.log"
}

# Processes of the session that $name was started in. None if the number of that session is somebody else's by now:
# ours shows in the mark, which its processes inherit (some write over it later, so one that has it is enough).
members() {
    local session='' mark='' found process
    [[ ! -f $state/$name.pid ]] || read -r session mark < "$state/$name.pid"
    [[ -n $mark ]] || return 0
    found=$(in_session "$session")
    for process in $found; do
        if tr '\0' '\n' 2> /dev/null < "/proc/$process/environ" | grep -qx "ZPD_RAY_NODE=$mark"; then
            echo "$found"
            return 0
        fi
    done
}

in_session() {
    ps -o pid= -s "$1" | tr -d ' ' || true
}

# End them: `ray start --block` drains its node first, for up to 30 s. Not `ray stop`: that ends every Ray here.
stop_one() {
    local processes session waited
    processes=$(members)
    if [[ -n $processes ]]; then
        read -r session _ < "$state/$name.pid"
        # shellcheck disable=SC2086  # one word per process; the first of a session has its number, if it lives
        kill -TERM "$session" 2> /dev/null || kill -TERM $processes || true
        for ((waited = 0; waited < 160; waited++)); do
            # Known to be ours, and its number cannot go to others while one of them lives.
            processes=$(in_session "$session")
            [[ -n $processes ]] || break
            sleep 0.25
        done
        # shellcheck disable=SC2086
        [[ -z $processes ]] || kill -KILL $processes 2> /dev/null || true
        echo "stopped '$name'"
    fi
    rm -f "$state/$name.pid"
}

stop() {
    local kind file
    if [[ -n $name ]]; then
        [[ -f $state/$name.pid ]] || fail "nothing called '$name' was started here"
        stop_one
        return
    fi
    for kind in worker head; do # a worker asks its head to be drained
        for file in "$state"/*.pid; do
            name=$(basename "$file" .pid)
            [[ ! -f $file ]] || ! grep -q " $kind-" "$file" || stop_one
        done
    done
}

need() {
    local program
    for program in "$@"; do
        type -P "$program" > /dev/null || fail "needs the program $program, which is not on the PATH"
    done
}

case $command in
    head | worker | stop) read_options "$@" ;;
    --help | -h | help) help; exit 0 ;;
    '') help >&2; exit 2 ;;
    *) fail "unknown command '$command'; expected head, worker or stop; see --help" ;;
esac
need ps setsid
case $command in
    head) need ray; start_head ;;
    worker) need ray; start_worker ;;
    stop) stop ;;
esac
