#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| skerry_store_fuzz::run("gap", input));
