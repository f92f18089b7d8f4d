# Programs for ARM on another machine; sourced. `emulator` says for which, before `emulated` runs one.

emulator() { # aarch64|arm
    handler=/usr/lib/binfmt.d/qemu-$1.conf
    known=/proc/sys/fs/binfmt_misc/qemu-$1
    if [[ ! -e $handler ]]; then
        echo "${0##*/}: there is no $handler: install qemu-user-static" >&2
        return 1
    fi
}

# The kernel hands ARM programs to QEMU: those that ARM programs start, too. Where it does not
# already, it does in a user namespace (Linux 6.7 or newer) that ends with the command.
emulated() { # COMMAND...
    if [[ -e $known ]]; then
        "$@"
        return
    fi
    local inside='
        mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
        cat "$1" >/proc/sys/fs/binfmt_misc/register
        shift
        exec "$@"'
    if ((EUID)); then
        unshare --user --map-root-user --mount bash -euc "$inside" emulated "$handler" "$@"
        return
    fi
    # As root the users stay who they are, for files that belong to many. The map is for a process
    # outside to write, and the rights of root come with the first program after it.
    coproc mapper {
        read -r pid
        echo 0 0 4294967295 | tee "/proc/$pid/uid_map" >"/proc/$pid/gid_map"
        echo mapped
    }
    unshare --user --mount bash -euc '
        echo $$ >&3
        read -r _ <&4
        exec 3>&- 4<&- bash -euc "$@"
    ' mapped "$inside" emulated "$handler" "$@" \
        3>"/dev/fd/${mapper[1]}" 4<"/dev/fd/${mapper[0]}"
}
