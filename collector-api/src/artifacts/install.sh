#!/bin/sh
# Installs the Procfleet agent on this host; run again, it repairs; `sh install.sh uninstall` removes all of it.
# Made by a Procfleet server for the release that it mirrors. POSIX sh. Nothing runs unless all of it arrived.

main() {
set -eu
umask 077
began=$(pwd)
cd /

version='@VERSION@'
artifacts='@ARTIFACTS@'
endpoints='@ENDPOINTS@'
sources='@SOURCES@'
pins='@PINS@'
is_public='@PUBLIC@'
keys='@KEYS@'

base=/opt/procfleet/agent
binary=$base/current/procfleet-agent
command=/usr/local/bin/procfleet-agent
state=/var/lib/procfleet-agent
user=procfleet
units=/etc/systemd/system
trusted=/etc/procfleet/trusted-keys.d
# What did not exist before: `directory PATH`, `user`. For uninstall.
record=$base/made
patience=60

temporary=
is_placed=
made=

say() { printf 'procfleet: %s\n' "$*"; }
fail() { printf 'procfleet: %s\n' "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

usage() {
    cat <<'USAGE'
usage: sh install.sh [--token-file FILE] [--binary FILE]
       sh install.sh uninstall

  --token-file FILE  holds the enrolment token: mode 0600, root's; removed when the host is enrolled.
                     Without it: the variable PROCFLEET_TOKEN, else it is asked for on the terminal.
  --binary FILE      the agent, brought here by other means; it has to have the hash that this script knows.
USAGE
}

# The digest of a file, by whatever can make one.
digest() {
    if has sha256sum; then set -- "$(sha256sum <"$1")"
    elif has busybox; then set -- "$(busybox sha256sum <"$1")"
    elif has openssl; then set -- "$(openssl dgst -sha256 -r <"$1")"
    elif has shasum; then set -- "$(shasum -a 256 <"$1")"
    else fail 'nothing here computes SHA-256: install sha256sum (coreutils), busybox or openssl'
    fi
    printf '%s' "${1%%[ *]*}"
}

has_systemd() { has systemctl && [ -d /run/systemd/system ]; }

# Makes a directory and those above it, each of mode $1, and remembers which.
directory() {
    if [ -z "$2" ] || [ -d "$2" ]; then return; fi
    directory 0755 "${2%/*}"
    mkdir -m "$1" "$2"
    made="directory $2
$made"
}

# Whatever happens: no half of anything stays.
cleanup() {
    if [ -n "$temporary" ]; then rm -rf "$temporary"; fi
    if [ -z "$is_placed" ]; then remove_made "$made"; fi
}

# Removes directories that were made, if they are empty.
remove_made() {
    printf '%s\n' "$1" | while read -r kind path; do
        if [ "$kind" = directory ]; then rmdir "$path" 2>/dev/null || :; fi
    done
}

find_artifact() {
    case $(uname -s)/$(uname -m) in
    Linux/x86_64 | Linux/amd64) target=x86_64-linux ;;
    Linux/aarch64 | Linux/arm64) target=aarch64-linux ;;
    *) fail "there is no agent for $(uname -s) on $(uname -m)" ;;
    esac
    set -- $artifacts
    while [ $# -ge 3 ]; do
        if [ "$1" = "$target" ]; then
            sha256=$2
            size=$3
            return
        fi
        shift 3
    done
    fail "release $version has no agent for $target: publish one on the server, or install another way"
}

# Gets $1 into the file $2. Who answers is verified by the server's authority, or by the public ones where the
# release is served under a public name. busybox verifies nobody: what it brings is held against the hash like all.
fetch() {
    if has curl; then
        if [ "$is_public" = yes ]; then set -- "$@" --proto '=https'
        else set -- "$@" --proto '=https' --cacert "$temporary/authority.pem"
        fi
        url=$1 file=$2
        shift 2
        curl -fsS --connect-timeout 10 --retry 3 -o "$file" "$@" "$url"
    elif has wget && ! wget --help 2>&1 | grep -q BusyBox; then
        if [ "$is_public" = yes ]; then wget -q -T 10 -t 3 -O "$2" "$1"
        else wget -nv -T 10 -t 3 --ca-certificate="$temporary/authority.pem" -O "$2" "$1"
        fi
    elif has wget; then wget -q -T 30 --no-check-certificate -O "$2" "$1"
    elif has busybox; then busybox wget -q -T 30 --no-check-certificate -O "$2" "$1"
    else fail 'nothing here downloads: install curl or wget, or bring the agent here and name it with --binary'
    fi
}

download() {
    cat >"$temporary/authority.pem" <<'AUTHORITY'
@AUTHORITY@
AUTHORITY
    for source in $sources; do
        say "downloading the agent $version from $source"
        if fetch "$source/v1/artifacts/$sha256" "$temporary/procfleet-agent"; then return; fi
    done
    fail "the agent could not be downloaded from $sources (see above): nothing was installed"
}

# Puts the binary where it belongs, unless it is there.
place() {
    release=$base/releases/$(printf '%.16s' "$sha256")
    if [ -f "$release/procfleet-agent" ] && [ "$(digest "$release/procfleet-agent")" = "$sha256" ]; then
        say "the agent $version is here already"
    else
        directory 0755 "$base/releases"
        temporary=$(mktemp -d "$base/.install.XXXXXX")
        if [ -n "$given" ]; then cp "$given" "$temporary/procfleet-agent"; else download; fi
        check "$temporary/procfleet-agent"
        directory 0755 "$release"
        mv -f "$temporary/procfleet-agent" "$release/procfleet-agent"
    fi
    is_placed=yes
    remember
    describe "$release"
    # Another release by hand: what was found out about others by updates is over.
    if [ "$(readlink "$base/current" 2>/dev/null)" != "releases/${release##*/}" ]; then
        rm -f "$base/update-state.json"
    fi
    # Where systemd starts what is confirmed and what updates.
    if has_systemd; then point "releases/${release##*/}" "$base/confirmed"; fi
    point "releases/${release##*/}" "$base/current"
    directory 0755 "${command%/*}"
    point "$binary" "$command"
    remember
}

# Puts the signed release beside its binary, and the keys of those who may sign others where updates look.
describe() {
    umask 022
    cat >"$1/release.json" <<'RELEASE'
@RELEASE@
RELEASE
    number=0
    for key in $keys; do
        directory 0755 "$trusted"
        number=$((number + 1))
        printf '%s\n' "$key" >"$trusted/procfleet-install-$number.pub"
    done
    umask 077
    remember
}

# Whether a file is the binary that this script is for, and runs here.
check() {
    bytes=$(($(wc -c <"$1")))
    if [ "$bytes" -ne "$size" ]; then
        fail "the agent has $bytes bytes instead of $size: it was cut off, or is another file. Nothing was installed"
    fi
    if [ "$(digest "$1")" != "$sha256" ]; then
        fail "the agent is not the file of release $version: its SHA-256 is $(digest "$1") instead of $sha256. Nothing was installed"
    fi
    chmod 0755 "$1"
    status=0
    said=$("$1" --version 2>&1) || status=$?
    case $status in
    0) ;;
    126) fail "the agent cannot be executed in $base: is its file system mounted noexec? It has to be mounted exec. Nothing was installed ($said)" ;;
    *) fail "the agent does not run on this host, so nothing was installed: $said" ;;
    esac
}

# Makes the symbolic link $2 to $1, at once where `mv -T` is known.
point() {
    if [ -h "$2" ] && [ "$(readlink "$2")" = "$1" ]; then return; fi
    if [ -e "$2" ] && [ ! -h "$2" ]; then
        fail "$2 exists and was not made by this script: remove it, or the package it came with, first"
    fi
    ln -s "$1" "$2.new.$$"
    mv -Tf "$2.new.$$" "$2" 2>/dev/null || {
        rm -f "$2"
        mv -f "$2.new.$$" "$2"
    }
}

# Adds what was made to the record, once.
remember() {
    if [ -n "$made" ]; then printf '%s' "$made" >>"$record"; fi
    made=
}

make_user() {
    if grep -q "^$user:" /etc/passwd; then return; fi
    if has useradd; then
        useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$user"
    elif has adduser && has addgroup; then
        addgroup -S "$user" 2>/dev/null || :
        adduser -S -D -H -h /nonexistent -s /sbin/nologin -G "$user" "$user"
    else
        id=999
        while grep -q "^[^:]*:[^:]*:$id:" /etc/passwd /etc/group; do id=$((id - 1)); done
        printf '%s:x:%s:\n' "$user" "$id" >>/etc/group
        printf '%s:x:%s:%s::/nonexistent:/sbin/nologin\n' "$user" "$id" "$id" >>/etc/passwd
    fi
    made="user
$made"
    remember
}

remove_user() {
    if has userdel; then userdel "$user"
    elif has deluser; then
        deluser "$user"
        delgroup "$user" 2>/dev/null || :
    else
        for file in /etc/passwd /etc/group; do
            grep -v "^$user:" "$file" >"$file.procfleet" || :
            cat "$file.procfleet" >"$file"
            rm -f "$file.procfleet"
        done
    fi
}

# Gets this host its identity. The token goes to the agent by a file, the environment or the terminal, never as an argument.
enroll() {
    directory 0700 "$state"
    remember
    if [ -n "$token_file" ]; then set -- --token-file "$token_file"; else set --; fi
    if [ -n "$token" ]; then PROCFLEET_TOKEN=$token "$binary" enroll "$@"
    else "$binary" enroll "$@"
    fi || fail "the agent is installed and not enrolled. Correct what it says above, and run this script again (the servers are $endpoints, the pins of their authority $pins)"
    token=
    if [ -n "$token_file" ]; then rm -f "$token_file"; fi
}

write_unit() { (umask 022 && cat >"$units/$1"); }

write_units() {
@UNITS@
}

start() {
    chown -R "$user:$user" "$state"
    directory 0755 "$units"
    remember
    write_units
    if has restorecon; then restorecon -R "$base" "$command" "$state" "$units"/procfleet-agent* || :; fi
    before=$("$binary" delivered 2>/dev/null) || before=0
    systemctl daemon-reload
    systemctl enable -q @ENABLED@
    systemctl restart @ENABLED@
    say "started; waiting for a server to take a report"
    "$binary" delivered --more-than "$before" --wait "${patience}s" >/dev/null ||
        fail "installed and started, but no server took a report within $patience s: see \`journalctl -u procfleet-agent\` and \`systemctl status procfleet-agent\`"
    say "done: the server has this host's reports"
}

install() {
    given=
    token_file=
    token=${PROCFLEET_TOKEN-}
    unset PROCFLEET_TOKEN
    while [ $# -gt 0 ]; do
        case $1 in
        --token-file | --binary)
            if [ $# -lt 2 ]; then fail "$1 needs a file"; fi
            case $2 in /*) ;; *) set -- "$1" "$began/$2" ;; esac
            if [ ! -f "$2" ]; then fail "$2 is not a file"; fi
            if [ "$1" = --binary ]; then given=$2; else token_file=$2; fi
            shift 2
            ;;
        -h | --help) usage; return ;;
        *) usage >&2; fail "it is not known what $1 means. A token is never an argument: others could read it" ;;
        esac
    done
    if [ "$(id -u)" -ne 0 ]; then fail 'this needs root: run it with sudo'; fi
    if [ -e /usr/bin/procfleet-agent ]; then
        fail 'a package holds the agent here (/usr/bin/procfleet-agent): update that one, or remove it first'
    fi
    find_artifact
    trap cleanup EXIT
    trap 'exit 1' HUP INT TERM
    place
    make_user
    enroll
    if has_systemd; then
        start
    else
        if has restorecon; then restorecon -R "$base" "$command" "$state" || :; fi
        say 'this host has no systemd: nothing is started by itself. Let your init system run, as root:'
        say "    $command run"
        say "and \`$command delivered --more-than 0 --wait ${patience}s\` tells when a server has taken a report"
    fi
}

# Ends agents that something else than systemd started.
stop_others() {
    for process in /proc/[0-9]*; do
        program=$(readlink "$process/exe" 2>/dev/null) || continue
        case $program in
        # Not those of a container, which have the same path in another root.
        "$base"/*) if [ "$process/root/" -ef / ]; then kill "${process#/proc/}" 2>/dev/null || :; fi ;;
        esac
    done
    seconds=0
    while running && [ "$seconds" -lt 20 ]; do
        sleep 1
        seconds=$((seconds + 1))
    done
}

running() {
    for process in /proc/[0-9]*; do
        program=$(readlink "$process/exe" 2>/dev/null) || continue
        case $program in "$base"/*) if [ "$process/root/" -ef / ]; then return 0; fi ;; esac
    done
    return 1
}

uninstall() {
    if [ "$(id -u)" -ne 0 ]; then fail 'this needs root: run it with sudo'; fi
    if [ ! -d "$base" ]; then
        say 'the agent is not installed by this script: nothing to do'
        return
    fi
    if has_systemd; then
        systemctl disable -q --now @ENABLED@ 2>/dev/null || :
        systemctl stop procfleet-agent-update.timer procfleet-agent-update.service 2>/dev/null || :
    fi
    stop_others
    if [ -f "$state/identity/identity.json" ]; then
        "$binary" goodbye --reason uninstall ||
            say 'no server heard that this host leaves: decommission it there, or it will be reported silent'
    fi
    made=
    if [ -f "$record" ]; then made=$(cat "$record"); fi
    for unit in @UNIT_NAMES@; do rm -f "$units/$unit"; done
    if has_systemd; then systemctl daemon-reload; fi
    if [ -h "$command" ]; then rm -f "$command"; fi
    rm -rf "$state" "$base"
    rm -f "$trusted"/procfleet-install-*.pub
    case $made in *user*) remove_user ;; esac
    remove_made "$made"
    say 'the agent is removed, with its identity and what it had not delivered'
}

case ${1-} in
uninstall) uninstall ;;
*) install "$@" ;;
esac
}
{ main "$@"; }
