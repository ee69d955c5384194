# shellcheck shell=bash
# Sourced by the scripts beside it: brings a machine that has only Rust to where attention runs. Does nothing where all
# is there already, so that every script can begin with it.

die() {
    printf '%s\n' "$*" >&2
    exit 1
}

setup_machine() {
    setup_cargo
    # macOS brings Metal, Windows brings DX12 (with a software adapter): only Linux may lack a driver.
    if [ "$(uname -s)" = Linux ]; then
        setup_packages
        setup_runtime_dir
    fi
}

setup_cargo() {
    # A shell older than the installation does not have it in its path yet.
    if ! command -v cargo >/dev/null && [ -r "$HOME/.cargo/env" ]; then
        # shellcheck disable=SC1091
        . "$HOME/.cargo/env"
    fi
    command -v cargo >/dev/null || die "cargo is missing; get Rust from https://rustup.rs and run this again."
}

# For scripts that lint; minimal toolchains come without.
setup_lints() {
    if cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1; then
        return
    fi
    command -v rustup >/dev/null || die "rustfmt or clippy is missing, and no rustup is here to add it; see https://rustup.rs."
    rustup component add rustfmt clippy
}

setup_packages() {
    local missing=()
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    has_vulkan || missing+=(libvulkan1 mesa-vulkan-drivers)
    if [ ${#missing[@]} -eq 0 ]; then
        return
    fi
    command -v apt-get >/dev/null ||
        die "A Vulkan driver or a C linker is missing, and this is not Debian or Ubuntu; install what they call ${missing[*]}."
    [ "$(id -u)" = 0 ] || command -v sudo >/dev/null ||
        die "${missing[*]} must be installed, which needs root or sudo; ask an administrator to run: apt-get install ${missing[*]}"
    echo "installing ${missing[*]} (the driver runs on the CPU where there is no GPU)"
    as_root apt-get update -qq || echo "apt-get update failed; trying with the package lists that are here" >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
        die "apt-get could not install ${missing[*]}; its own message stands above."
}

# Whether Debian's packages can be fetched and unpacked without being installed. Where not, calls $1 with the reason, which ends.
can_unpack_debian() {
    [ "$(uname -sm)" = "Linux x86_64" ] || "$1" "it is fetched for Linux on x86_64 alone, and this is $(uname -sm)"
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
        "$1" "apt-get or dpkg-deb is missing, which fetch and unpack it"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Whether the loader is there, and a driver that announces itself to it. Cheap: nothing is loaded.
has_vulkan() {
    # Users other than root may not have /sbin in their path.
    local libraries
    libraries=$(PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null) || return 1
    [[ $libraries == *libvulkan.so.1* ]] || return 1

    local named="${VK_DRIVER_FILES:-${VK_ICD_FILENAMES:-}}" file
    if [ -n "$named" ]; then
        # The loader then looks nowhere else.
        while IFS= read -r -d : file; do
            if [ -e "$file" ]; then return 0; fi
        done <<<"$named:"
        return 1
    fi
    for file in /usr/share/vulkan/icd.d/*.json /etc/vulkan/icd.d/*.json /usr/local/share/vulkan/icd.d/*.json \
        /usr/local/etc/vulkan/icd.d/*.json "$HOME"/.local/share/vulkan/icd.d/*.json; do
        if [ -e "$file" ]; then return 0; fi
    done
    return 1
}

# Mesa complains on every start when it has no private folder.
setup_runtime_dir() {
    if [ -d "${XDG_RUNTIME_DIR:-}" ] && [ -O "$XDG_RUNTIME_DIR" ]; then
        return
    fi
    XDG_RUNTIME_DIR=$(mktemp -d)
    export XDG_RUNTIME_DIR
    trap 'rm -rf "$XDG_RUNTIME_DIR"' EXIT
}
