# shellcheck shell=bash
# Sourced by scripts/test: the device tests and the conformance run on every driver, every shader through every compiler, and
# plans on another implementation of WebGPU, as far as this machine can be brought to have them. What cannot be had is skipped
# with a line that says why. Results go to a CSV file, a line a check, which support.py keeps and draws.

everywhere_root="${CARGO_TARGET_DIR:-$PWD/target}/everywhere"
everywhere_rows="$everywhere_root/rows.csv"
everywhere_failed=0
everywhere_parts=(lavapipe mesa swiftshader gpu spirv hlsl wgsl msl dawn)

# A line of results: NAME DEVICE CHECK PASSED FAILED SKIPPED WHY.
everywhere_record() {
    local row field
    row=$(date +%F)
    for field in "$@"; do
        row+=",\"${field//\"/\'}\""
    done
    printf '%s\n' "$row" >>"$everywhere_rows"
}

# Records what was not run, and why: NAME CHECK WHY.
everywhere_skip() {
    printf '\nskipped: %s, %s: %s\n' "$1" "$2" "$3"
    everywhere_record "$1" "" "$2" "" "" "" "not run: $3"
}

# Runs a check in a shell of its own, shows what it says and keeps it: NAME DEVICE CHECK COMMAND...
# Its lines that count say how many passed. Status 77 means that it could not be had.
everywhere_check() {
    local name=$1 device=$2 check=$3 log="$everywhere_root/log" status=0
    shift 3
    printf '\n== %s: %s\n' "$name" "$check"
    ("$@") 2>&1 | tee "$log" || status=${PIPESTATUS[0]}
    if [ "$status" = 77 ]; then
        everywhere_skip "$name" "$check" "$(sed -n 's/^skipped: //p' "$log" | tail -n1)"
        return
    fi
    # cargo test counts each binary on a line, the others count once at the end.
    local counted passed failed skipped why
    counted=$(sed -n 's/^test result: [A-Za-z]*\. //p' "$log")
    [ -n "$counted" ] || counted=$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$log" | tail -n1) || true
    passed=$(everywhere_count passed "$counted") failed=$(everywhere_count failed "$counted")
    skipped=$(everywhere_count skipped "$counted")
    # What a compiler left out it names in lines of its own.
    why=$(grep -E '^[0-9]+ left out: ' "$log" | paste -sd ';' - | sed 's/;\([0-9]\)/; \1/g') || true
    if [ "$status" != 0 ] || [ "$failed" != 0 ] || [ "$passed" = 0 ]; then
        everywhere_failed=1
        why="${why:+$why; }ended with status $status"
    fi
    everywhere_record "$name" "$device" "$check" "$passed" "$failed" "$skipped" "$why"
}

# The sum of the numbers before a word.
everywhere_count() {
    { grep -oE "[0-9]+ $1" <<<"$2" || true; } | awk '{ sum += $1 } END { print sum + 0 }'
}

# Kind, name and driver of the device that the environment selects; nothing where none opens.
everywhere_device() {
    local json="$everywhere_root/device.json"
    rm -f "$json"
    cargo run --quiet --example conformance -- --json "$json" tests/golden/merge_lse__* >/dev/null 2>&1 || true
    [ -e "$json" ] || return 0
    python3 -c 'import json, sys
a = json.load(open(sys.argv[1]))["adapter"]
print(a["device_type"], a["name"].split(" (")[0] + ", " + (a["driver_info"] or a["driver"]), sep="\t")' "$json"
}

# Everything that runs on the device that the environment selects: NAME.
everywhere_driver() {
    local name=$1 device
    device=$(everywhere_device | cut -f2)
    if [ -z "$device" ]; then
        everywhere_skip "$name" "device tests" "its device does not open"
        everywhere_failed=1
        return
    fi
    local every=${SAMPLE:-1} among="" cases=(tests/golden)
    if [ "$every" = 1 ]; then
        # One at a time: a software driver uses all cores, and some keep much memory for each kernel. The contract is the
        # conformance run, which follows.
        everywhere_check "$name" "$device" "device tests" cargo test --test gpu -- --test-threads 1 --skip contract::
    else
        among=", one case in $every"
        mapfile -t cases < <(find tests/golden -name '*.safetensors' | sort | awk -v every="$every" 'NR % every == 1')
        everywhere_skip "$name" "device tests$among" "a sample is of golden cases alone"
    fi
    everywhere_check "$name" "$device" "conformance, twice, equal bit by bit$among" \
        cargo run --example conformance -- --twice "${cases[@]}"
    everywhere_check "$name" "$device" "conformance at WebGPU limits$among" \
        cargo run --example conformance -- --limits webgpu "${cases[@]}"
    everywhere_check "$name" "$device" "conformance by five other ways$among" \
        cargo run --example conformance -- --path no-subgroups,staged,streamed,f16,f16-staged "${cases[@]}"
}

# A driver that the loader's environment names: NAME ICD.
everywhere_icd() {
    export VK_DRIVER_FILES="$2" VK_ICD_FILENAMES="$2"
    everywhere_driver "$1"
    unset VK_DRIVER_FILES VK_ICD_FILENAMES
}

# A compiler over the shaders, all or a sample.
everywhere_compiler() {
    local all="all shaders"
    [ "${SAMPLE:-1}" = 1 ] || all="one shader in $SAMPLE"
    case "$1" in
    spirv) everywhere_check "spirv-val" "" "SPIR-V for Vulkan 1.3, $all" compile_spirv ;;
    hlsl) everywhere_check "DirectX's compiler" "" "HLSL, $all" compile_hlsl ;;
    wgsl) everywhere_check "Tint" "" "WGSL to pipelines, $all" compile_wgsl ;;
    msl) everywhere_check "Metal" "" "MSL translated and searched, not compiled, $all" compile_msl ;;
    esac
}

everywhere_part() {
    local found why
    case "$1" in
    lavapipe)
        found=$(find /usr/share/vulkan/icd.d -name 'lvp_icd*.json' 2>/dev/null | head -n1)
        if [ -n "$found" ]; then
            everywhere_icd "lavapipe of the system" "$found"
        else
            everywhere_skip "lavapipe of the system" "device tests" "mesa-vulkan-drivers is not installed"
        fi
        ;;
    mesa)
        if why=$( (mesa_fetch) 2>&1); then
            export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$PWD/scripts/lib/on-mesa"
            everywhere_driver "lavapipe of Mesa 26"
            # Golden cases are given no matrix units there unless they are asked for, since CPUs that run shaders have none worth using;
            # device tests are.
            if [ "${SAMPLE:-1}" != 1 ]; then
                everywhere_check "lavapipe of Mesa 26" "" "matrix units, one device test" \
                    cargo test --test gpu -- computed_again::strides
            else
                everywhere_check "lavapipe of Mesa 26" "" "conformance in f16 on matrix units" \
                    cargo run --example conformance -- --path f16-matrices tests/golden
            fi
            unset CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER
        else
            everywhere_skip "lavapipe of Mesa 26" "device tests" "$(tail -n1 <<<"$why")"
        fi
        ;;
    swiftshader)
        if why=$( (swiftshader_fetch) 2>&1); then
            everywhere_icd SwiftShader "$swiftshader_icd"
        else
            everywhere_skip SwiftShader "device tests" "$(tail -n1 <<<"$why")"
        fi
        ;;
    gpu)
        found=$(everywhere_device)
        case "$found" in
        "") everywhere_skip "GPU of the machine" "device tests" "no driver is here" ;;
        Cpu*) everywhere_skip "GPU of the machine" "device tests" "it has none" ;;
        *) everywhere_driver "GPU of the machine" ;;
        esac
        ;;
    spirv | hlsl | wgsl | msl) everywhere_compiler "$1" ;;
    dawn) everywhere_check "Dawn" "" "plans executed" run_dawn ;;
    *) die "scripts/test --everywhere: $1 is unknown; parts are ${everywhere_parts[*]}." ;;
    esac
}

# These parts or all, then the table. RECORD=1 keeps it in docs/support.csv and README.md.
everywhere() {
    mkdir -p "$everywhere_root"
    echo "date,name,device,check,passed,failed,skipped,why" >"$everywhere_rows"
    [ $# -gt 0 ] || set -- "${everywhere_parts[@]}"
    case " $* " in
    *" spirv "* | *" hlsl "* | *" wgsl "* | *" msl "*)
        printf '\n== every shader\n'
        compilers_dump
        ;;
    esac
    local part
    for part in "$@"; do
        everywhere_part "$part"
    done
    printf '\n'
    if [ "${RECORD:-}" = 1 ]; then
        python3 scripts/lib/support.py docs/support.csv "$everywhere_rows" README.md
    else
        rm -f "$everywhere_root/support.csv"
        python3 scripts/lib/support.py "$everywhere_root/support.csv" "$everywhere_rows"
    fi
    [ "$everywhere_failed" = 0 ] || die "something failed; the table says what"
}
