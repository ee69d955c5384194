# shellcheck shell=bash
# Sourced: SwiftShader, Google's Vulkan on the CPU, from Debian's package of Chromium: subgroups of 4, no f16. Nothing is
# installed; programs run on it by the environment alone.

swiftshader_root="${CARGO_TARGET_DIR:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/target}/swiftshader"
swiftshader_icd="$swiftshader_root/usr/lib/chromium/vk_swiftshader_icd.json"

swiftshader_unavailable() {
    printf 'SwiftShader could not be had: %s.\n' "$*" >&2
    exit 77
}

# Fetches the driver unless it is here.
swiftshader_fetch() {
    if [ -e "$swiftshader_icd" ]; then
        return
    fi
    can_unpack_debian swiftshader_unavailable
    local new="$swiftshader_root.new" log
    rm -rf "$new"
    mkdir -p "$new"
    echo "fetching SwiftShader into $swiftshader_root (31 MB, once)" >&2
    log=$(cd "$new" && apt-get download chromium-common 2>&1) ||
        log=$(as_root apt-get update -qq 2>&1 && cd "$new" && apt-get download chromium-common 2>&1) ||
        swiftshader_unavailable "apt-get download chromium-common: $(tail -n1 <<<"$log")"
    dpkg-deb --fsys-tarfile "$new"/chromium-common_*.deb |
        tar -xf - -C "$new" ./usr/lib/chromium/libvk_swiftshader.so ./usr/lib/chromium/vk_swiftshader_icd.json ||
        swiftshader_unavailable "Debian's chromium-common holds none"
    rm "$new"/*.deb
    rm -rf "$swiftshader_root"
    mv "$new" "$swiftshader_root"
}
