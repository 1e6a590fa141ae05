//! Where in a configuration file a key stands.

/// The line of a key, counted from 1, or of the table it would be in; `None` if neither is there.
///
/// `path` is as figment reports it: names of tables and keys, and indexes into arrays of tables.
#[must_use]
pub fn line_of(text: &str, path: &[String]) -> Option<usize> {
    let indexes = |part: &String| part.parse::<usize>().ok();
    let names: Vec<&str> =
        path.iter().filter(|part| indexes(part).is_none()).map(String::as_str).collect();
    let wanted = path.iter().find_map(indexes).unwrap_or(0);
    let (key, table) = names.split_last()?;
    let table = table.join(".");
    let (mut current, mut seen, mut found) = (String::new(), 0, None);
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            let array = header.starts_with('[');
            let name = header.trim_start_matches('[').split(']').next().unwrap_or_default();
            current = name.trim().to_owned();
            seen += usize::from(array && current == table);
            // A table is the place of a key that it does not have.
            if current == table && (!array || seen == wanted + 1) {
                found = found.or(Some(number + 1));
            }
            if table.is_empty() && current == *key {
                return Some(number + 1);
            }
            continue;
        }
        let here = current == table && (seen == 0 || seen == wanted + 1);
        let name = line.split('=').next().unwrap_or_default().trim().trim_matches('"');
        if here && line.contains('=') && name == *key {
            return Some(number + 1);
        }
    }
    found
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
