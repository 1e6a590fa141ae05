//! An application in a process of its own, driven line by line; see `walrust_testkit::Application`.
//!
//! Commands on stdin, each answered on stdout before the next is read:
//! * `run <slot> <path> <sql>`: runs SQL on the connection of a slot, which opens `path` if it is
//!   not open. Answer: `ok`, or `refused <reason>`.
//! * `close`: closes all connections, in the order of their slots. Answer: `ok`.
//! * `read <path>`: the bytes of a file. Answer: `bytes <number>`, then the bytes.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;

use rusqlite::Connection;

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("walrust-test-application: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), Box<dyn std::error::Error>> {
    let mut connections: BTreeMap<u32, Connection> = BTreeMap::new();
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (command, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match command {
            "run" => {
                let mut words = rest.splitn(3, ' ');
                let mut word = || words.next().ok_or("a command is cut short");
                let (slot, path, sql) = (word()?.parse()?, word()?, word()?);
                match run(&mut connections, slot, path, sql) {
                    Ok(()) => writeln!(out, "ok")?,
                    Err(error) => {
                        writeln!(out, "refused {}", error.to_string().replace('\n', " "))?;
                    }
                }
            }
            "close" => {
                while let Some((_, connection)) = connections.pop_first() {
                    connection.close().map_err(|(_, error)| error)?;
                }
                writeln!(out, "ok")?;
            }
            "read" => {
                let bytes = match std::fs::read(rest) {
                    Ok(bytes) => bytes,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                    Err(error) => return Err(error.into()),
                };
                writeln!(out, "bytes {}", bytes.len())?;
                out.write_all(&bytes)?;
            }
            _ => return Err(format!("unknown command {command:?}").into()),
        }
        out.flush()?;
    }
    Ok(())
}

fn run(
    connections: &mut BTreeMap<u32, Connection>,
    slot: u32,
    path: &str,
    sql: &str,
) -> rusqlite::Result<()> {
    if !connections.contains_key(&slot) {
        connections.insert(slot, Connection::open(path)?);
    }
    connections[&slot].execute_batch(sql)
}
