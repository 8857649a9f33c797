//! Flags in, exit code out.

use std::process::ExitCode;

use narthex::cli::{self, Action};

// With glibc its own allocator holds a fraction of the memory (ARCHITECTURE.md
// has the figures); musl's is too slow.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Action::Exit(code) => code,
        Action::Serve(options) => narthex::server::run(*options),
    }
}
