//! Progress of commands that move files, drawn on terminals only.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that counts bytes, with their rate and the time that is left. `what` is being done.
pub(super) fn progress_bar(what: &str, size: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = format!(
        "{what} {{wide_bar}} {{binary_bytes}}/{{binary_total_bytes}} {{binary_bytes_per_sec}} {{eta}}"
    );
    let style = ProgressStyle::with_template(&template).expect("the template is well-formed");
    ProgressBar::new(size).with_style(style)
}
