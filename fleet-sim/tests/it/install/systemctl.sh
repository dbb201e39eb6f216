#!/bin/sh
# What the install script asks systemd for, by hand: the program of ExecStart, User and AmbientCapabilities of the unit.
unit=/etc/systemd/system/procfleet-agent.service
of() { sed -n "s/^$1=//p" "$unit"; }
echo "$*" >>/run/systemctl.log
case $1 in
restart)
    capabilities=$(of AmbientCapabilities | tr 'A-Z ' 'a-z,' | sed 's/cap_/+/g')
    user=$(of User)
    # shellcheck disable=SC2046
    setsid setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs \
        --bounding-set "-all,$capabilities" --inh-caps "-all,$capabilities" --ambient-caps "-all,$capabilities" \
        $(of ExecStart) >/run/agent.log 2>&1 </dev/null &
    ;;
esac
