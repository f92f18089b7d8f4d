#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| skerry_broker_fuzz::run("packets", input));
