//! Where in a configuration file a key stands.

use std::ops::Range;

use toml_edit::{ImDocument, Item};

/// The line of a key, counted from 1, or of the table it would be in; `None` if neither is there.
///
/// `path` is as figment reports it: names of tables and keys, and indexes into arrays.
#[must_use]
pub fn line_of(text: &str, path: &[String]) -> Option<usize> {
    let document = ImDocument::parse(text).ok()?;
    let (mut item, mut found) = (document.as_item(), None);
    for part in path {
        let Some((span, next)) = step(item, part) else { break };
        // Tables that dotted keys imply have no place of their own.
        found = span.or(found);
        item = next;
    }
    found.map(|span| line_at(text, &span))
}

fn step<'a>(item: &'a Item, part: &str) -> Option<(Option<Range<usize>>, &'a Item)> {
    if let Some(table) = item.as_table_like() {
        let (key, value) = table.get_key_value(part)?;
        // All entries of an array of tables have one key: the first of them.
        return Some((key.span().or_else(|| value.span()), value));
    }
    let entry = item.get(part.parse::<usize>().ok()?)?;
    Some((entry.span(), entry))
}

/// What keeps a text from being TOML, and its line. The text itself is left out: it may hold secrets.
pub(super) fn syntax_error(text: &str) -> Option<String> {
    let error = ImDocument::parse(text).err()?;
    let problem = error.message().replace('\n', "; ");
    Some(match error.span() {
        Some(span) => format!("line {}: {problem}", line_at(text, &span)),
        None => problem,
    })
}

fn line_at(text: &str, span: &Range<usize>) -> usize {
    let before = text.as_bytes().get(..span.start).unwrap_or(text.as_bytes());
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_their_table() {
        let text =
            "[sync]\non_idle = 1\n\n[[databases]]\npath = 1\n[[databases]]\n\"on_idle\" = 2\n";
        let line =
            |path: &str| line_of(text, &path.split('.').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(line("sync.on_idle"), Some(2));
        assert_eq!(line("databases.0.path"), Some(5));
        assert_eq!(line("databases.1.on_idle"), Some(7));
        assert_eq!(line("databases.1.path"), Some(6), "the table that lacks it");
        assert_eq!(line("databases"), Some(4));
        assert_eq!(line("s3.bucket"), None);
    }
}
