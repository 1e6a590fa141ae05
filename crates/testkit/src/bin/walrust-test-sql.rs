//! Runs the SQL that comes on stdin, a statement a line, and answers on stdout, as
//! `walrust_testkit::SqlProcess` wants it. Closes the connection when stdin closes.
//!
//! `walrust-test-sql <path>`

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

fn main() -> Result<(), Box<dyn Error>> {
    let path = env::args_os().nth(1).ok_or("the path of the database is missing")?;
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::ZERO)?;
    let mut stdout = io::stdout().lock();
    for line in io::stdin().lines() {
        match run(&connection, &line?, &mut stdout) {
            Ok(()) => writeln!(stdout, "ok")?,
            Err(error) => match error.downcast::<rusqlite::Error>() {
                Ok(error) => writeln!(stdout, "error\t{error}")?,
                Err(error) => return Err(error),
            },
        }
        stdout.flush()?;
    }
    connection.close().map_err(|(_, error)| error.into())
}

fn run(connection: &Connection, sql: &str, stdout: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let mut statement = connection.prepare(sql)?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        write!(stdout, "row")?;
        for column in 0..columns {
            match row.get_ref(column)? {
                ValueRef::Null => write!(stdout, "\tNone")?,
                ValueRef::Integer(value) => write!(stdout, "\t{value}")?,
                ValueRef::Real(value) => write!(stdout, "\t{value}")?,
                ValueRef::Text(value) => write!(stdout, "\t{}", String::from_utf8_lossy(value))?,
                ValueRef::Blob(value) => write!(stdout, "\t{value:?}")?,
            }
        }
        writeln!(stdout)?;
    }
    Ok(())
}
