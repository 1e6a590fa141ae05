//! An application in a process of its own, driven line by line; see `walrust_testkit::Application`.
//!
//! Commands on stdin, each answered on stdout before the next is read:
//! * `run <slot> <path> <sql>`: runs SQL on the connection of a slot, which opens `path` if it is
//!   not open. Answer: `ok`, or `refused <reason>`.
//! * `race <slot> <path> <count> <sql>`: runs SQL so often, with its number in place of `{i}`, and
//!   looks at the database each time. Answer: `images <count>`, then each as `read` answers.
//! * `close`: closes all connections, in the order of their slots. Answer: `ok`.
//! * `read <path>`: the bytes of a file. Answer: `bytes <number>`, then the bytes.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;

use rusqlite::{Connection, MAIN_DB};

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
            "race" => {
                let mut words = rest.splitn(4, ' ');
                let mut word = || words.next().ok_or("a command is cut short");
                let (slot, path, count, sql) = (word()?.parse()?, word()?, word()?, word()?);
                let connection = connections.get(&slot).ok_or("the connection is not open")?;
                let mut images = Vec::new();
                for number in 0..count.parse::<u8>()? {
                    connection.execute_batch(&sql.replace("{i}", &number.to_string()))?;
                    // Another connection: the cache of this one may have pages of its own.
                    let image = Connection::open(path)?.serialize(MAIN_DB)?.to_vec();
                    images.push(image);
                }
                writeln!(out, "images {}", images.len())?;
                for image in images {
                    writeln!(out, "bytes {}", image.len())?;
                    out.write_all(&image)?;
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
    let connection = match connections.entry(slot) {
        Entry::Occupied(open) => open.into_mut(),
        Entry::Vacant(vacant) => vacant.insert(Connection::open(path)?),
    };
    connection.execute_batch(sql)
}
