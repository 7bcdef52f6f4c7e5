#!/bin/sh
# HAProxy as Ray Serve starts it, with two changes to the configuration that Ray writes: the ports of HAProxy's own
# metrics and statistics listen on loopback instead of all interfaces, and its admin socket is for this user instead of
# for all. Ray Serve has no setting for either. Called as: loopback_haproxy.sh -db -f CONFIG ...
config=
previous=
for argument in "$@"; do
    [ "$previous" = "-f" ] && config=$argument
    previous=$argument
done
if [ -n "$config" ]; then
    for port in "$RAY_SERVE_HAPROXY_METRICS_PORT" "$RAY_SERVE_HAPROXY_STATS_PORT"; do
        sed -e "s/bind [*]*:$port\$/bind 127.0.0.1:$port/" -e 's/ mode 666 / mode 600 /' "$config" >"$config.loopback" &&
            cat "$config.loopback" >"$config" || exit 1
    done
fi
exec "$RETRIEVAL_HAPROXY" "$@"
