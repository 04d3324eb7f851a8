# Sourced by the other scripts: make a virtual environment once, from the pinned constraints (or $CONSTRAINTS).

# ensure_venv DIR [EXTRAS]: create DIR and install this project with EXTRAS, unless that was already done there
# from the same pyproject.toml and constraints.txt. Without EXTRAS: those of runs, or any others that are there.
ensure_venv() {
  local dir=$1 extras=${2:-} python=${PYTHON:-python3} stamp
  if [ ! -x "$dir/bin/python" ]; then
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
      { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11" >&2; return 1; }
    "$python" -m venv "$dir"
  fi
  stamp=$(cat pyproject.toml constraints.txt | cksum)
  if ! grep -qsxF "$stamp" "$dir"/.installed-${extras:-*}; then
    echo "Installing lotto_jax[${extras:-run}] into $dir (once; some minutes)"
    "$dir/bin/python" -m pip install --quiet --disable-pip-version-check \
      --constraint "${CONSTRAINTS:-constraints.txt}" --editable ".[${extras:-run}]"
    echo "$stamp" > "$dir/.installed-${extras:-run}"
  fi
}
