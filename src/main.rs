//! The `walrust` program: parse, run, turn the outcome into an exit code.

use std::process::ExitCode;

mod allocator;

fn main() -> ExitCode {
    walrust::runtime::prepare_process();
    ExitCode::from(walrust::cli::main() as u8)
}
