//! Files of variables: `EnvironmentFile=` of a unit (systemd.exec(5)), and what init scripts read with the shell.

use std::ops::Range;

use super::words::{self, Variables};

/// Who reads the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// systemd: `$` has no meaning in it.
    Systemd,
    /// A shell: variables set before are put in, and a line may begin with `export`.
    Shell,
}

/// Puts a file's variables over those that are there. Lines that are none are passed over, as systemd does; commands of a
/// shell are not carried out.
pub fn read_into(variables: &mut Variables, text: &str, reader: Reader) {
    for_each(text, reader, |name, value| {
        let (value, read) = value_at(value, reader, variables);
        variables.insert(name.to_owned(), value);
        read
    });
}

/// Returns where the values of a file's assignments are, in order, as they are written: quotes included, the end of the
/// line not.
pub fn assignments(text: &str, reader: Reader) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for_each(text, reader, |_, value| {
        let (_, read) = value_at(value, reader, &Variables::new());
        let start = text.len() - value.len();
        let written = value.get(..read).unwrap_or_default();
        found.push(start..start + written.strip_suffix('\n').unwrap_or(written).len());
        read
    });
    found
}

/// Gives every assignment's name, and the text from its value on, to `take`, which returns how many bytes it has read.
fn for_each(text: &str, reader: Reader, mut take: impl FnMut(&str, &str) -> usize) {
    let mut rest = text;
    while !rest.is_empty() {
        let line_end = rest.find('\n').unwrap_or(rest.len());
        let (line, after) = rest.split_at_checked(line_end).unwrap_or((rest, ""));
        let begun = line.trim_start();
        let begun = match reader {
            Reader::Shell => begun.strip_prefix("export ").map_or(begun, str::trim_start),
            Reader::Systemd => begun,
        };
        let assigned = begun.split_once('=').filter(|(name, _)| words::is_name(name.trim_end()));
        match assigned {
            Some((name, value)) if !begun.starts_with(['#', ';']) => {
                // The value may go on over the end of its line.
                let from = rest.len() - after.len() - value.len();
                let read = take(name.trim_end(), rest.get(from..).unwrap_or_default());
                rest = rest.get(from + read..).unwrap_or_default();
            }
            _ => rest = after.strip_prefix('\n').unwrap_or(after),
        }
    }
}

/// Returns the value at the beginning of a text, and how many bytes of it were read, its line end included.
fn value_at(text: &str, reader: Reader, known: &Variables) -> (String, usize) {
    let mut value = String::new();
    // How much of the value is kept when what follows is only white space.
    let mut kept = 0;
    let mut quote: Option<char> = None;
    let mut literal_dollar = Vec::new();
    let mut chars = text.char_indices();
    let mut read = text.len();
    while let Some((at, c)) = chars.next() {
        match (c, quote) {
            ('\n', None) => {
                read = at + 1;
                break;
            }
            (c, Some(open)) if c == open => {
                quote = None;
                kept = value.len();
            }
            ('"' | '\'', None) if value.len() == kept || !value.ends_with(char::is_whitespace) => quote = Some(c),
            ('\\', None | Some('"')) => match chars.next() {
                None | Some((_, '\n')) => {}
                Some((_, next)) => {
                    let keeps = quote.is_some() && !matches!(next, '"' | '\\' | '`' | '$');
                    value.extend(keeps.then_some('\\'));
                    if next == '$' {
                        literal_dollar.push(value.len());
                    }
                    value.push(next);
                    kept = value.len();
                }
            },
            (c, _) => {
                if c == '$' && quote == Some('\'') {
                    literal_dollar.push(value.len());
                }
                let leading = quote.is_none() && value.is_empty() && c.is_whitespace();
                if !leading {
                    value.push(c);
                }
                if quote.is_some() || !c.is_whitespace() {
                    kept = value.len();
                }
            }
        }
    }
    value.truncate(kept);
    if reader == Reader::Shell && literal_dollar.is_empty() {
        value = words::expand_shell(&value, known);
    }
    (value, read)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str, reader: Reader) -> Variables {
        let mut variables = Variables::new();
        read_into(&mut variables, text, reader);
        variables
    }

    #[test]
    fn the_file_of_centos_7() {
        // As its package installs it, conditions of the shell included, which systemd passes over.
        let text = "# /etc/sysconfig/docker\n\nOPTIONS='--selinux-enabled --log-driver=journald'\n\
                    if [ -z \"${DOCKER_CERT_PATH}\" ]; then\n    DOCKER_CERT_PATH=/etc/docker\nfi\n\
                    # ADD_REGISTRY='--add-registry x'\nBLANK=\n;NOT=1\n";
        let variables = read(text, Reader::Systemd);
        assert_eq!(variables["OPTIONS"], "--selinux-enabled --log-driver=journald");
        assert_eq!(variables["DOCKER_CERT_PATH"], "/etc/docker");
        assert_eq!((variables["BLANK"].as_str(), variables.len()), ("", 3));
    }

    #[test]
    fn quotes_and_line_ends() {
        let text = "A=\"--storage-opt dm.fs=xfs \\\n --storage-opt dm.basesize=20G\" \nB = x\\\ny  \nC='it''s'\nD=\"a\nb\"\nE=\"\\\"q\\\"\"";
        let variables = read(text, Reader::Systemd);
        assert_eq!(variables["A"], "--storage-opt dm.fs=xfs  --storage-opt dm.basesize=20G");
        assert_eq!((variables["B"].as_str(), variables["C"].as_str()), ("xy", "its"));
        assert_eq!((variables["D"].as_str(), variables["E"].as_str()), ("a\nb", "\"q\""));
    }

    #[test]
    fn a_shell_puts_in_what_was_set_before() {
        let text = "export DOCKER_OPTS=\"-D\"\nDOCKER_OPTS=\"$DOCKER_OPTS -g /srv\"\nSINGLE='$DOCKER_OPTS'\n";
        let variables = read(text, Reader::Shell);
        assert_eq!((variables["DOCKER_OPTS"].as_str(), variables["SINGLE"].as_str()), ("-D -g /srv", "$DOCKER_OPTS"));
        assert_eq!(read("DOCKER_OPTS=\"$X\"\n", Reader::Systemd)["DOCKER_OPTS"], "$X");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_or_run_for_ever(text in "[\\PC\\\\\"'$=#;A\n ]{0,80}") {
            let _ = (read(&text, Reader::Systemd), read(&text, Reader::Shell));
        }

        #[test]
        fn plain_values_come_back(value in "[a-z0-9/=.,:-]{0,30}") {
            prop_assert_eq!(&read(&format!("K={value}\n"), Reader::Systemd)["K"], &value);
            prop_assert_eq!(&read(&format!("K='{value}'"), Reader::Shell)["K"], &value);
        }
    }
}
