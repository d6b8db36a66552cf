# Keeps one private RabbitMQ node for the process at the other end of standard input, and takes
# the node, its epmd and their folder away when that process says so or is no more: a killed
# process can tidy nothing up, but its end of the socket closes all the same.
#
#   sh -c <this text> supervise FOLDER EPMD RABBITMQ_SERVER
#
# Without EPMD, the one at the environment's port is somebody else's and stays.
#
# One request a line (start, status, kill, "stop TENTHS"), one answer a line: "up PID", "down" or
# "failed WHY". End of input is the order to leave.

folder=$1 epmd_program=$2 server_program=$3
epmd='' node=''

alive() { [ -n "$1" ] && kill -0 "$1" 2>/dev/null; }

# Ends the node: signal $1, then $2 tenths of a second later, if need be, SIGKILL. The sleep is
# also what lets the shell notice that its child is gone.
end_node() {
    if alive "$node"; then
        kill -"$1" "$node"
        left=$2
        while alive "$node" && [ "$left" -gt 0 ]; do
            sleep 0.1
            left=$((left - 1))
        done
        alive "$node" && kill -KILL "$node"
        wait "$node"
    fi
    node=''
}

leave() {
    trap '' HUP INT TERM
    end_node KILL 50
    if alive "$epmd"; then
        kill "$epmd"
        wait "$epmd"
    fi
    # The port programs of a killed node may still be writing for a moment.
    rm -rf "$folder" || { sleep 0.5; rm -rf "$folder"; }
}

trap leave EXIT
trap 'exit 0' HUP INT TERM
trap '' PIPE

# A quorum queue takes three descriptors, and a node that has run out of them accepts no
# connection and says nothing.
hard=$(ulimit -H -n)
if [ "$hard" = unlimited ] || [ "$hard" -gt 20000 ]; then hard=20000; fi
ulimit -S -n "$hard"

# Started here and not by the node, so that its id is known; a node that finds one uses it.
start_epmd() {
    [ -n "$epmd_program" ] || return 0
    alive "$epmd" && return 0
    "$epmd_program" -address 127.0.0.1 -port "$ERL_EPMD_PORT" </dev/null >>"$folder/console.log" 2>&1 &
    epmd=$!
    tries=100
    while [ "$tries" -gt 0 ]; do
        sleep 0.05
        alive "$epmd" || return 1
        "$epmd_program" -port "$ERL_EPMD_PORT" -names >/dev/null 2>&1 && return 0
        tries=$((tries - 1))
    done
    return 1
}

answer() { if alive "$node"; then echo "up $node"; else echo down; fi; }

while read -r request argument; do
    case $request in
    start)
        if ! start_epmd; then
            echo 'failed epmd did not start'
            continue
        fi
        if ! alive "$node"; then
            "$server_program" </dev/null >>"$folder/console.log" 2>&1 &
            node=$!
        fi
        answer
        ;;
    status) sleep 0.05; answer ;;
    kill) end_node KILL 50; answer ;;
    stop) end_node TERM "$argument"; answer ;;
    *) echo "failed unknown request $request" ;;
    esac
done
