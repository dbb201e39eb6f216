#!/bin/sh
# Writes the secrets of docker-compose.yml into a directory (default: secrets/), each unless it is there.
#
# Compose mounts the files as they are, so containers that are not root must be able to read them: the files are
# readable, and the directory lets nobody but its owner through.
set -eu
umask 077
directory=${1:-secrets}
mkdir -p "$directory"

# 32 random bytes in hexadecimal: nothing that a URL or TOML would need to escape.
random() {
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n'
}

keep() {
    if [ ! -s "$directory/$1" ]; then
        cat > "$directory/$1.new"
        chmod 0444 "$directory/$1.new"
        mv "$directory/$1.new" "$directory/$1"
        echo "wrote $directory/$1"
    fi
}

for name in postgres-password database-password grafana-database-password grafana-admin-password; do
    random | keep "$name"
done
keep server.toml <<TOML
database_url = "postgres://procfleet:$(cat "$directory/database-password")@timescaledb/procfleet"
TOML
