#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| skerry_pack_fuzz::run("rows", input));
