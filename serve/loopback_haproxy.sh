#!/bin/sh
# HAProxy as Ray Serve starts it, with two changes to the configuration that Ray writes: HAProxy's own metrics and
# statistics wait on sockets in its folder instead of ports on all interfaces (nobody asks for them here, and a port that
# was free when it was chosen can be another's when it is bound), and its admin socket is for this user instead of for
# all. Ray Serve has no setting for either. Called as: loopback_haproxy.sh -db -f CONFIG ...
config=
previous=
for argument in "$@"; do
    [ "$previous" = "-f" ] && config=$argument
    previous=$argument
done
if [ -n "$config" ]; then
    folder=$(dirname "$config")
    sed -e "s|bind [*]*:$RAY_SERVE_HAPROXY_METRICS_PORT\$|bind unix@$folder/m.sock mode 600|" \
        -e "s|bind [*]*:$RAY_SERVE_HAPROXY_STATS_PORT\$|bind unix@$folder/s.sock mode 600|" \
        -e 's/ mode 666 / mode 600 /' "$config" >"$config.mine" && cat "$config.mine" >"$config" || exit 1
fi
exec "$RETRIEVAL_HAPROXY" "$@"
