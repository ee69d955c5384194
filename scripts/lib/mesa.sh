# shellcheck shell=bash
# Sourced: Mesa's software driver of a later Debian, in a folder of its own. It has cooperative matrices, which the drivers
# of stable systems lack, so kernels that use matrix units can be tested without a GPU that has them. Nothing is installed:
# packages are downloaded, unpacked, and programs run through the C library that came with them.

mesa_suite=trixie
# What a program linked by rustc needs beside the driver; what these need follows.
mesa_packages=(mesa-vulkan-drivers libvulkan1 libc6 libstdc++6 libgcc-s1)
mesa_root="${CARGO_TARGET_DIR:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/target}/mesa"

# Says why the driver could not be had, with the exit status by which callers tell that from a failed test.
mesa_unavailable() {
    printf 'Mesa of Debian %s-backports could not be had: %s.\n' "$mesa_suite" "$*" >&2
    exit 77
}

# Fetches the driver unless it is here.
mesa_fetch() {
    if [ -e "$mesa_root/lvp.json" ]; then
        return
    fi
    can_unpack_debian mesa_unavailable
    local new="$mesa_root.new"
    rm -rf "$new"
    mkdir -p "$new"/{root,apt/lists/partial,apt/archives/partial}
    mesa_apt "$new/apt"
    local package
    for package in "$new"/apt/archives/*.deb; do
        dpkg-deb -x "$package" "$new/root"
    done
    mesa_icd "$new" >"$new/lvp.json"
    mesa_check_libc "$new/root/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
    rm -rf "$new/apt" "$mesa_root"
    mv "$new" "$mesa_root"
}

# Programs built here run with the fetched C library, which must not be older than the one that they were linked with.
mesa_check_libc() {
    local here fetched
    here=$(getconf GNU_LIBC_VERSION 2>/dev/null) || mesa_unavailable "programs built here do not use the GNU C library"
    here=${here#glibc }
    fetched=$("$1" --version | sed -n '1s/.* \([0-9.]*[0-9]\)\.$/\1/p')
    [ "$(printf '%s\n%s\n' "$here" "$fetched" | sort -V | tail -n1)" = "$fetched" ] ||
        mesa_unavailable "it brings C library $fetched, and programs built here need $here"
}

# Downloads the packages and all that they need into the folder's archives: apt with its own lists, and a system in which
# nothing is installed.
mesa_apt() {
    local folder=$1 keyring=/usr/share/keyrings/debian-archive-keyring.gpg suite log="$1/log"
    if [ ! -e "$keyring" ]; then
        # Ubuntu carries Debian's keys as a package.
        (cd "$folder" && apt-get download debian-archive-keyring >log 2>&1 && dpkg-deb -x debian-archive-keyring_*.deb keys) ||
            mesa_unavailable "Debian's keys are missing, and apt-get download debian-archive-keyring failed: $(mesa_reason "$log")"
        keyring="$folder/keys$keyring"
    fi
    # The archive that this system's own packages come from.
    local archive
    archive=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 2>/dev/null | grep -v security | sort -u | head -n1)
    [ -n "$archive" ] || archive=$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep '/debian/$' | sort -u | head -n1)
    [ -n "$archive" ] || mesa_unavailable "this system gets no packages from a Debian archive"
    for suite in "$mesa_suite" "$mesa_suite-backports"; do
        echo "deb [arch=amd64 signed-by=$keyring] $archive $suite main"
    done >"$folder/sources.list"
    : >"$folder/status"
    local options=(
        -qq
        -o "APT::Architecture=amd64" -o "APT::Architectures=amd64"
        -o "APT::Default-Release=" -o "APT::Sandbox::User=root"
        -o "Acquire::Retries=2" -o "Acquire::http::Timeout=30" -o "Acquire::Languages=none"
        -o "APT::Update::Error-Mode=any" -o "APT::Update::Post-Invoke-Success=" -o "APT::Update::Post-Invoke="
        -o "Dir::Etc::SourceList=$folder/sources.list" -o "Dir::Etc::SourceParts=/dev/null"
        -o "Dir::Etc::Preferences=/dev/null" -o "Dir::Etc::PreferencesParts=/dev/null"
        -o "Dir::State=$folder" -o "Dir::State::Lists=$folder/lists" -o "Dir::State::status=$folder/status"
        -o "Dir::Cache=$folder" -o "Dir::Cache::Archives=$folder/archives"
        -o "Debug::NoLocking=1"
    )
    echo "fetching Mesa of Debian $mesa_suite-backports into $mesa_root (60 MB, once)" >&2
    apt-get "${options[@]}" update >"$log" 2>&1 || mesa_unavailable "$(mesa_reason "$log")"
    apt-get "${options[@]}" install --yes --no-install-recommends --download-only -t "$mesa_suite-backports" \
        "${mesa_packages[@]}" >"$log" 2>&1 || mesa_unavailable "$(mesa_reason "$log")"
}

# The first error of a log of apt's.
mesa_reason() {
    local line
    line=$(grep -m1 '^E:' "$1") || line=$(tail -n1 "$1")
    printf '%s' "${line#E: }"
}

# The driver's description for the Vulkan loader: the one that Debian ships, naming the library from where it lies now.
mesa_icd() {
    local icds=("$1"/root/usr/share/vulkan/icd.d/lvp_icd*.json)
    [ -e "${icds[0]}" ] || mesa_unavailable "its packages hold no lavapipe"
    sed 's#"library_path": *"[^"]*"#"library_path": "root/usr/lib/x86_64-linux-gnu/libvulkan_lvp.so"#' "${icds[0]}"
}

# Runs a program on the fetched driver, by the fetched C library: the host's may be older than the driver asks for. Device tests are
# told that matrix units must be there: without any, those of matrix units would have nothing to fail on.
mesa_run() {
    local libraries="$mesa_root/root/usr/lib/x86_64-linux-gnu"
    WGPU_ATTENTION_UNITS=1 VK_DRIVER_FILES="$mesa_root/lvp.json" VK_ICD_FILENAMES="$mesa_root/lvp.json" \
        "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" "$@"
}
