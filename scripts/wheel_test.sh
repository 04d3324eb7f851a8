#!/usr/bin/env bash
# Build the wheel and the source archive, install them into empty environments, and use them outside of the checkout.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
install() { "$place/$1/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt "${@:2}"; }
for name in build pruning run; do "${PYTHON:-python3}" -m venv "$place/$name"; done
install build build
export JAX_PLATFORMS=cpu PROJECT_URL=https://example.org/owner/lotto_jax
"$place/build/bin/python" -m build --quiet --outdir "$place/dist" .  # the wheel is made from the source archive
wheel=$(echo "$place"/dist/*.whl)

install pruning "$wheel"
cd "$place"
pruning/bin/python -c "import importlib.metadata; print(importlib.metadata.distribution('lotto_jax').read_text('METADATA'))" > metadata
grep -q "^Project-URL: Homepage, $PROJECT_URL$" metadata
grep -q "]($PROJECT_URL/raw/HEAD/.assets/" metadata
if grep -E '\]\((docs|configs|lotto_jax|\.assets)/' metadata; then exit 1; fi  # a link that only a checkout has
pruning/bin/python -c "
import jax.numpy as jnp, sys
from lotto_jax import pruning
params = {'kernel': jnp.arange(1.0, 13.0).reshape(3, 4), 'bias': jnp.ones(4)}
mask = pruning.global_prune(pruning.magnitude(params), pruning.ones(params), 0.25)
assert pruning.sparsity(mask) == 0.25 and 'flax' not in sys.modules
"
if pruning/bin/lotto-jax run --config=quickstart --workdir=nothing 2> said; then exit 1; fi
grep -q "runs need pip install 'lotto_jax\[run\]'" said || { cat said; exit 1; }

cd "$root" && install run "$wheel[run]"
cd "$place"
run/bin/lotto-jax describe --config=dcgan_cifar10:cpu > /dev/null
run/bin/lotto-jax run --config=quickstart --workdir=here --config.imp.rounds=1 --config.train.epochs=1
test -s here/report.html
echo "The wheel works: $(basename "$wheel"), $(du -h "$wheel" | cut -f1)"
