#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tower_oauth_fuzz::challenge(input));
