# The compilers for a target; sourced, with `target` (cargo's target folder) and `rust_flags` set.
#
# Linking and C are zig's in every case: it carries each target's C library, glibc of the version
# that is asked for. Rust is the machine's own where `rustup target add` has been run. Elsewhere it
# is Debian's `rustc-web`, unpacked below target/cross: nothing on the system changes, nor need one
# be root.

readonly tools=$target/cross/tools
readonly debian=$target/cross/debian
readonly prefix=$debian/root/usr

toolchain() { # TARGET
    zig
    [[ -d $(rustc --print sysroot)/lib/rustlib/$1/lib ]] && return 0
    echo "cross/build: rustup has no target $1 here (rustup target add), so it is Debian's compiler" >&2
    debian_rust
    debian_std "$1"
    export RUSTC=$debian/rustc
    # Musl's start files come with rustup's targets, but not with these; zig has them.
    if [[ $1 == *musl* ]]; then rust_flags+=(-Clink-self-contained=no); fi
}

zig() {
    PATH=$tools/bin:$PATH
    export ZIG_GLOBAL_CACHE_DIR=$target/cross/cache CARGO_ZIGBUILD_CACHE_DIR=$target/cross/cache
    cmp -s "$tools/.made-from" cross/requirements.txt && return 0
    rm -rf "$tools"
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --no-cache-dir --disable-pip-version-check \
        -r cross/requirements.txt
    cp cross/requirements.txt "$tools/.made-from"
}

# --- Debian's Rust ---------------------------------------------------------------------------

debian_rust() {
    [[ -x $debian/rustc ]] && return 0
    if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
        echo 'cross/build: and this is no Debian: install rustup and the target' >&2
        return 1
    fi
    rm -rf "$debian"
    mkdir -p "$debian"/{debs,root,apt/state/lists/partial,apt/cache/archives/partial}
    apt get update
    # The libraries have versions in their names, which those that need them tell.
    local std llvm
    std=$(depends_on libstd-rust-web-dev 'libstd-rust-web-[0-9.]+')
    llvm=$(depends_on "$std" 'libllvm[0-9.]+')
    unpack rustc-web "$std" "$llvm" libstd-rust-web-dev rust-web-src
    printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' \
        "$prefix/lib/$(uname -m)-linux-gnu:$prefix/lib" "$prefix/bin/rustc" >"$debian/rustc.new"
    chmod +x "$debian/rustc.new"
    "$debian/rustc.new" --version
    mv "$debian/rustc.new" "$debian/rustc"
}

# Debian builds the standard library for what Debian runs on; ours for the rest are built from its
# source, once, as cargo's `build-std` does it.
debian_std() { # TARGET
    [[ -d $prefix/lib/rustlib/$1/lib ]] && return 0
    case $1 in
        aarch64-unknown-linux-gnu) unpack libstd-rust-web-dev:arm64 ;;
        *) build_std "$1" ;;
    esac
}

build_std() { # TARGET
    local folder=$debian/std
    mkdir -p "$folder/src"
    : >"$folder/src/lib.rs"
    printf '[package]\nname = "wants-std"\nedition = "2024"\n[workspace]\n' >"$folder/Cargo.toml"
    # With bitcode, which the profile `dist` optimises across all crates.
    RUSTC=$debian/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$folder/target \
        RUSTFLAGS="-Cembed-bitcode=yes --remap-path-prefix=$prefix/lib/rustlib/src/rust=/rustc" \
        cargo-zigbuild zigbuild --manifest-path "$folder/Cargo.toml" --release --target "$1" \
        -Zbuild-std=std,panic_unwind,test
    rm "$folder/target/$1/release/deps/"libwants_std-*
    mkdir -p "$folder/lib" "$prefix/lib/rustlib/$1"
    cp "$folder/target/$1/release/deps/"*.rlib "$folder/lib"
    mv "$folder/lib" "$prefix/lib/rustlib/$1/lib"
    rm -rf "$folder"
}

# Debian's packages, from the sources that this machine uses; also those for 64-bit ARM.
apt() { # get|cache ARGUMENT...
    local command=apt-$1
    shift
    "$command" -q -o Dir::State="$debian/apt/state" -o Dir::Cache="$debian/apt/cache" \
        -o Dir::State::status=/dev/null -o APT::Architectures::=arm64 -o APT::Sandbox::User=root "$@"
}

depends_on() { # PACKAGE PATTERN
    apt cache show --no-all-versions "$1" | grep '^Depends:' | grep -oE "$2" | head -n 1
}

unpack() { # PACKAGE...
    (cd "$debian/debs" && apt get download "$@")
    local deb
    for deb in "$debian/debs/"*.deb; do
        # Of the source, the standard library is all that is needed.
        dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$debian/root" \
            --no-wildcards-match-slash --exclude='./usr/src/*/src' \
            --exclude='./usr/src/*/compiler' --exclude='./usr/share'
    done
    rm "$debian/debs/"*.deb
}
