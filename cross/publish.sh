# A message by hand, where nothing else speaks MQTT; sourced.

# A CONNECT and a PUBLISH of `kept` with QoS 1; fails unless CONNACK and PUBACK come back.
publish() { # TOPIC, of at most 100 bytes
    local length
    printf -v length '\\x32\\x%02x\\x00\\x%02x' $((${#1} + 8)) ${#1}
    exec 3<>/dev/tcp/127.0.0.1/1883
    printf '\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04test' >&3
    printf "$length%s\x00\x01kept" "$1" >&3
    [[ $(timeout 30 head -c 8 <&3 | od -An -tx1) == ' 20 02 00 00 40 02 00 01' ]] || return 1
    exec 3>&-
}
