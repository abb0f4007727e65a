//! Any text as a world, a Ganeti cluster, a trace or a plan.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| estive_world::laws::hold(bytes));
