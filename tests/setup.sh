#!/bin/sh
# Installs the Debian packages that the tests drive, where this machine is Debian and we are root.
# Without them the tests that need them are skipped, and say which package is missing.
set -u
packages="wrk redis-server prometheus prometheus-alertmanager chromium"
case "${1:-}" in
  chaos|bench) packages="$packages nginx haproxy nghttp2-client slowhttptest iproute2 iptables libfaketime gcc libc6-dev" ;;
esac
missing=""
for package in $packages; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
  echo "not installed, so some tests will be skipped:$missing" >&2
  exit 0
fi
echo "installing:$missing" >&2
export DEBIAN_FRONTEND=noninteractive
# No service may start: the tests start their own, on ports of their own.
policy=/usr/sbin/policy-rc.d
made=""
[ -e "$policy" ] || { printf '#!/bin/sh\nexit 101\n' > "$policy" && chmod +x "$policy" && made=1; }
apt-get update -qq >/dev/null 2>&1
# shellcheck disable=SC2086
apt-get install -qq -y --no-install-recommends $missing >/dev/null 2>&1 \
  || for package in $missing; do
       apt-get install -qq -y --no-install-recommends "$package" >/dev/null 2>&1 \
         || echo "could not install $package: tests that need it will be skipped" >&2
     done
[ -z "$made" ] || rm -f "$policy"
exit 0
