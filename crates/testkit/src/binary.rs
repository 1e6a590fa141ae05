//! The programs of this crate, which tests run beside themselves.

use std::env;
use std::path::PathBuf;

/// A binary of this crate, which lies beside the test binaries of the same target directory.
///
/// # Panics
/// If it has not been built.
pub(crate) fn test_binary(name: &str) -> PathBuf {
    let test = env::current_exe().expect("the path of the test binary");
    // Test binaries lie in `deps`, one below; others beside the binary.
    let binary = (test.ancestors().skip(1).take(2))
        .map(|directory| directory.join(name))
        .find(|binary| binary.is_file());
    binary.unwrap_or_else(|| {
        panic!(
            "no {name} beside {}: build it with \
             `cargo build -p walrust-testkit --bins` in the same profile, or run `make test`",
            test.display()
        )
    })
}
