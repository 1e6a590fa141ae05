//! `walrust pragma`: the recommended PRAGMAs.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use serde_json::json;

use super::{print, print_json};
use crate::Error;

#[derive(Debug, Args)]
pub(super) struct PragmaArgs {
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Explain each line
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    comments: bool,
    /// Print the result as JSON
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

/// PRAGMA, value, and why.
const RECOMMENDED: [(&str, &str, &str); 5] = [
    (
        "journal_mode",
        "WAL",
        "Replication reads the write-ahead log. Stored in the database: once is enough.",
    ),
    (
        "synchronous",
        "NORMAL",
        "Safe in WAL mode: no corruption; a power cut may undo the newest commits.",
    ),
    (
        "busy_timeout",
        "5000",
        "Milliseconds to wait for a lock, also for the moments in which walrust checkpoints.",
    ),
    (
        "wal_autocheckpoint",
        "1000",
        "The default. Harmless beside walrust, and bounds the WAL while walrust is not running.",
    ),
    ("foreign_keys", "ON", "Not about replication; off by default for historical reasons."),
];

pub(super) fn run(args: &PragmaArgs) -> Result<(), Error> {
    if args.json {
        let pragmas = RECOMMENDED
            .map(|(pragma, value, why)| json!({ "pragma": pragma, "value": value, "why": why }));
        return print_json(&json!({ "pragmas": pragmas }));
    }
    let text = text(args.comments);
    match &args.output {
        None => print(&text),
        Some(path) => std::fs::write(path, text).map_err(|source| Error::Io {
            what: format!("{}: cannot be written", path.display()),
            source,
        }),
    }
}

fn text(comments: bool) -> String {
    let mut text = String::new();
    if comments {
        text += "-- To be run on every connection to a database that walrust replicates.\n";
    }
    for (pragma, value, why) in RECOMMENDED {
        if comments {
            text += &format!("\n-- {why}\n");
        }
        text += &format!("PRAGMA {pragma} = {value};\n");
    }
    text
}
