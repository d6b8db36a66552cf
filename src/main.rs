//! The `hookbridge` program: runs the command, prints its error, and exits with its code.

use std::{
    io::{self, Write},
    process::ExitCode,
};

/// A delivery is some hundred small allocations on several threads, which the system's allocator
/// spends a fifth of the bridge's time on. `.cargo/config.toml` says how soon it gives memory back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    hookbridge::cli::main().unwrap_or_else(|error| {
        if error
            .downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
        {
            // Whoever read our output has seen enough.
            return ExitCode::SUCCESS;
        }
        // Nothing can be done if standard error is closed, too.
        let _ = writeln!(io::stderr(), "error: {error:#}");
        ExitCode::FAILURE
    })
}
