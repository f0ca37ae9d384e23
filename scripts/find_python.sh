# Sourced by the launchers beside it: sets $here to this folder and $python to an interpreter of 3.11 or newer,
# or ends with a sentence. A name on the path is not enough: a version manager's stand-in may exist and still fail.
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd) || exit 4
for python in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
    [ -n "$python" ] || continue
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && break
    [ "$python" = "${PYTHON:-}" ] && echo "seqroof: PYTHON=$python is no working Python 3.11 or newer; looking for another" >&2
    python=
done
if [ -z "$python" ]; then
    echo "seqroof needs Python 3.11 or newer, and neither python3 nor python3.11 to python3.13 is one." >&2
    echo "Install one, or name it: PYTHON=/path/to/python3 $0" >&2
    exit 4
fi
