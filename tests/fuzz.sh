# What the `run` scripts of the fuzz targets share; sourced by them, with `here` (the folder of the
# targets), TARGETS and LIMITS set. Their own `--help` tells the rest.

readonly SECONDS_EACH=8
readonly RUNS_EACH=2000000

root=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
folder=${here#"$root/"}
host=$(rustc -vV | sed -n 's/^host: //p')
out=$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")/fuzz

# Of its own target folder, so that these flags make nobody else build anew; for a named platform,
# so that they are not for build scripts and macros.
build() {
    RUSTFLAGS="--cfg fuzzing -D warnings -C passes=sancov-module \
        -C llvm-args=-sanitizer-coverage-level=4 \
        -C llvm-args=-sanitizer-coverage-inline-8bit-counters \
        -C llvm-args=-sanitizer-coverage-pc-table \
        -C llvm-args=-sanitizer-coverage-trace-compares" \
        cargo build --manifest-path "$here/Cargo.toml" --locked --release --bins \
        --target "$host" --target-dir "$out"
}

fuzz() { # TARGET ARGUMENT...
    local target=$1
    shift
    mkdir -p "$out/artifacts"
    "$out/$host/release/$target" "${LIMITS[@]}" -artifact_prefix="$out/artifacts/$target-" "$@"
}

# A figure of libFuzzer's, `cov` or `ft`, as it was at an event.
figure() { # NAME EVENT LOG
    sed -nE "s/^#[0-9]+[[:space:]]+$2 .*\\b$1: ([0-9]+).*/\\1/p" "$3"
}

# A moment on the committed seeds, always the same for the same code.
smoke() { # TARGET
    local target=$1 found=$out/found/$1 log=$out/$1.log
    rm -rf "$found"
    mkdir -p "$found"
    if ! fuzz "$target" -seed=1 -runs=$RUNS_EACH -max_total_time=$SECONDS_EACH \
        "$found" "$here/corpus/$target" >"$log" 2>&1; then
        echo "test fuzz $target ... FAILED"
        grep -m 1 -A 4 'panicked at' "$log" || grep -m 1 'ERROR: libFuzzer' "$log" || tail -n 5 "$log"
        # The file that libFuzzer wrote, as something to type.
        sed -nE "s|^.*Test unit written to (.*)$|again with: $folder/run $target \1|p" "$log"
        return 1
    fi
    local runs before after features
    runs=$(sed -nE 's/^Done ([0-9]+) runs .*/\1/p' "$log")
    before=$(figure cov INITED "$log")
    after=$(figure cov DONE "$log")
    features=$(figure ft DONE "$log")
    if ((after == 0 || after < before)); then
        echo "test fuzz $target ... FAILED: nothing is known of its coverage, see $log"
        return 1
    fi
    echo "test fuzz $target ... ok: $runs runs, coverage $before with the seeds, $after at the end ($features features)"
}

build
if (($#)); then
    target=$1
    shift
    if [[ -f ${1:-} ]]; then
        fuzz "$target" "$@"
    else
        mkdir -p "$out/corpus/$target"
        fuzz "$target" "$@" "$out/corpus/$target" "$here/corpus/$target"
    fi
    exit
fi
passed=0
failed=0
for target in "${TARGETS[@]}"; do
    if smoke "$target"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
done
word=ok
((failed == 0)) || word=FAILED
echo "test result: $word. $passed passed; $failed failed; 0 ignored"
((failed == 0))
