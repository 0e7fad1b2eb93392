# shellcheck shell=bash
# Sourced by the scripts of this folder: makes .venv in the repository's root, and touches it again only when what it
# should hold has changed. Nothing here is activated; callers say "$venv/bin/...".
#
#   PYTHON            the interpreter to build from (python3)
#   UNET_DIST_TORCH   "cpu", "cuda" or a build such as "cu126" or "2.9.1+cu126", for a driver too old for the newest (pip must
#                     know a place that has it, such as the index of PyTorch): which torch to install, where this machine
#                     is not the one that will compute, as on a cluster's login node (cuda where an NVIDIA device is
#                     visible, else cpu)

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv

say() { printf '\n== %s\n' "$*"; }

fail() {
  printf '\n%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

count_nvidia_devices() {
  # nvidia-smi fails where a driver is installed and no device is there, and then prints its reason on stdout.
  local listing
  if listing=$(nvidia-smi -L 2>/dev/null); then grep -c '^GPU ' <<<"$listing" || true; else echo 0; fi
}

choose_torch() {
  case ${UNET_DIST_TORCH:-} in
    cpu | cuda | cu[0-9][0-9][0-9] | [0-9]*.[0-9]*+cu[0-9][0-9][0-9]) echo "$UNET_DIST_TORCH" ;;
    "") if [ "$(count_nvidia_devices)" -gt 0 ]; then echo cuda; else echo cpu; fi ;;
    *) fail "UNET_DIST_TORCH is \"$UNET_DIST_TORCH\"; expected \"cpu\", \"cuda\" or a build such as \"cu126\". Unset it to let the machine decide." ;;
  esac
}

check_python() {
  local python=$1
  command -v "$python" >/dev/null ||
    fail "no \"$python\" on the path. Install Python 3.10 or newer, or name one: PYTHON=/path/to/python3 bash $0"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "$("$python" --version) is too old; expected Python 3.10 or newer. Name one: PYTHON=python3.12 bash $0"
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$("$python" --version) cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv"
}

# prepare_environment [EXTRA]: .venv holds this package (editable), its requirements and those of EXTRA ("test").
prepare_environment() {
  local extra=${1:-} python=${PYTHON:-python3} torch stamp wanted
  local -a constraint=() compile=() stamps
  check_python "$python"
  torch=$(choose_torch)
  case $torch in
    cpu) constraint=(-c "$root/launch/constraints-cpu.txt") ;;
    cu[0-9]*) constraint=("$(sed -n 's/^torch==.*/&/p' "$root/launch/constraints-cpu.txt")+$torch") ;;
    *+*) constraint=("torch==$torch") ;;
  esac

  # A stamp for each extra: the request with which pip last succeeded. An extra brings all that an environment without it needs.
  wanted=$({
    echo "$torch $root"
    "$python" --version
    cat "$root/setup.cfg" "$root/launch/constraints-cpu.txt"
  } | cksum)
  stamps=("$venv/.installed-$extra")
  [ -n "$extra" ] || stamps=("$venv"/.installed-*)
  for stamp in "${stamps[@]}"; do
    if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
      echo "$venv is as it should be."
      return
    fi
  done

  # An environment made for the other torch is made anew: pip takes a CPU build for any torch.
  if [ "$(cat "$venv/.torch" 2>/dev/null || echo "$torch")" != "$torch" ]; then
    echo "$venv was made for another device ($(cat "$venv/.torch")): making it anew for $torch."
    "$python" -m venv --clear "$venv"
  fi
  echo "Making $venv: $("$python" --version), torch for $torch${extra:+, the extra \"$extra\"}. A first time takes minutes."
  # The newest pip finds out what to install in a third of the time of Python 3.11's own; without a network that must do.
  [ -x "$venv/bin/python" ] || "$python" -m venv --upgrade-deps "$venv" 2>/dev/null || "$python" -m venv "$venv" ||
    fail "could not make $venv. Look at the message above; is the disk full or the folder read-only?"
  echo "$torch" >"$venv/.torch"
  # Of 21,000 modules the tests import a part, which Python compiles then: pip's own pass is most of an installation. Where many
  # nodes share the environment they would all compile at once, so runs get it compiled.
  [ "$extra" != test ] || compile=(--no-compile)
  "$venv/bin/python" -m pip install -qq ${compile[@]+"${compile[@]}"} ${constraint[@]+"${constraint[@]}"} --editable "$root${extra:+[$extra]}" ||
    fail "pip could not install the requirements. Its lines above say which one and why; run this again when mended."
  echo "$wanted" >"$venv/.installed-$extra"
}
