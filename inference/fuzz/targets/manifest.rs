#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| skerry_inference_fuzz::run("manifest", input));
