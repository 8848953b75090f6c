#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| runzeo_fuzz::targets::cluster::run(data));
