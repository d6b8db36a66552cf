# Owns a private PostgreSQL for as long as its standard input is open: $1 the folder of its programs,
# $2 its port. Says "folder <path>" when it runs. Lines: `stop` and `start` the server, `end`.
set -eu
umask 077
folder=$(mktemp -d /tmp/hookbridge-postgres-XXXXXX)
trap 'rm -rf "$folder"' EXIT
"$1/initdb" -D "$folder/data" -U hookbridge -A trust -E UTF8 --locale=C -N >"$folder/log" 2>&1 || {
    cat "$folder/log" >&2
    exit 1
}
start() {
    "$1/postgres" -D "$folder/data" -p "$2" -c listen_addresses=127.0.0.1 \
        -c unix_socket_directories= -c max_connections=300 </dev/null >>"$folder/log" 2>&1 &
    server=$!
}
stop() {
    kill -QUIT "$server" 2>/dev/null || :
    wait "$server" || :
}
start "$1" "$2"
echo "folder $folder"
while read -r order; do
    case $order in
    stop) stop ;;
    start) start "$1" "$2" ;;
    *) break ;;
    esac
    echo done
done
stop
