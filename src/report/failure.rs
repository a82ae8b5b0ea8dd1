//! A failure as the terminal shows it: a sentence, labelled facts, and last what to do next.

use crate::error::Failure;

/// Returns the text of a failure, each line ended.
///
/// ```text
/// dmpool: cannot grow the data of pool `p0` to 200.0 GiB: the file system of its loop file is too small
///   needed:  96.0 GiB more (103079215104 bytes)
///   free:    41.2 GiB (44238163968 bytes)
///   next:    dmpool grow p0 130G
/// ```
///
/// The error beneath becomes `cause:`, its root first; a fact labelled `cause` that says the same is not printed twice.
pub fn text(failure: &Failure) -> String {
    let cause = failure.source.as_ref().map(cause);
    let mut lines: Vec<(&str, &str)> = Vec::new();
    if let Some(cause) = &cause
        && failure.facts.iter().all(|fact| fact.value != *cause)
    {
        lines.push(("cause", cause));
    }
    lines.extend(failure.facts.iter().map(|fact| (fact.label, fact.value.as_str())));
    lines.extend(failure.next.as_deref().map(|next| ("next", next)));

    let mut text = format!("dmpool: {}\n", printable(&failure.what).replace('\n', " "));
    let width = lines.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
    for (label, value) in lines {
        let value = printable(value).replace('\n', &format!("\n{:1$}", "", width + 5));
        text.push_str(&format!("  {label}:{:1$}{value}\n", "", width + 2 - label.chars().count()));
    }
    text
}

/// Returns an error's chain in one line, the root cause first, since that is what is looked for:
/// ``EBUSY (Device or resource busy) from DM_TABLE_LOAD, while loading the table of `p0` (253:2)``.
fn cause(error: &anyhow::Error) -> String {
    let mut chain: Vec<String> = error.chain().map(ToString::to_string).collect();
    chain.reverse();
    chain.dedup();
    let mut links = chain.into_iter();
    let first = links.next().unwrap_or_default();
    // What could not be done is no doing, as other links are.
    let joined = |link: &str| if link.starts_with("cannot ") { "; " } else { ", while " };
    links.fold(first, |all, link| format!("{all}{}{link}", joined(&link)))
}

/// Returns a text that cannot steer a terminal: names in it may come from a hostile disk. Line ends stay.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.trim_end().chars() {
        if c.is_control() && c != '\n' {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_refusal_for_space() {
        let failure = Failure::refused(
            "cannot grow the data of pool `p0` to 200.0 GiB: the file system of its loop file is too small",
        )
        .fact("file", "/srv/pools/p0/data on /dev/sda1")
        .fact("needed", "96.0 GiB more (103079215104 bytes)")
        .fact("free", "41.2 GiB (44238163968 bytes)")
        .next("free the space, or grow to what is there:  dmpool grow p0 max");
        assert_eq!(
            text(&failure),
            "\
dmpool: cannot grow the data of pool `p0` to 200.0 GiB: the file system of its loop file is too small
  file:    /srv/pools/p0/data on /dev/sda1
  needed:  96.0 GiB more (103079215104 bytes)
  free:    41.2 GiB (44238163968 bytes)
  next:    free the space, or grow to what is there:  dmpool grow p0 max
"
        );
    }

    #[test]
    fn the_kernels_no_comes_first_and_says_where_it_was_met() {
        let kernel = anyhow!("EBUSY (Device or resource busy) from DM_TABLE_LOAD on p0 (253:2)")
            .context("loading the table of `p0` (253:2)");
        let failure = Failure::failed("cannot create pool `p0`: the kernel could not open its data device")
            .because(kernel)
            .fact("table", "0 209715200 thin-pool 7:0 8:16 128 32768 0")
            .fact("state", "the empty device p0 was removed again; nothing was written to /dev/sdb");
        assert_eq!(
            text(&failure),
            "\
dmpool: cannot create pool `p0`: the kernel could not open its data device
  cause:  EBUSY (Device or resource busy) from DM_TABLE_LOAD on p0 (253:2), while loading the table of `p0` (253:2)
  table:  0 209715200 thin-pool 7:0 8:16 128 32768 0
  state:  the empty device p0 was removed again; nothing was written to /dev/sdb
"
        );
    }

    #[test]
    fn a_bare_sentence_stands_alone() {
        assert_eq!(text(&Failure::refused("no such pool: `p9`")), "dmpool: no such pool: `p9`\n");
    }

    #[test]
    fn a_cause_is_not_said_twice_and_long_values_keep_their_column() {
        let failure = Failure::failed("cannot read x")
            .because(anyhow!("EIO (Input/output error)"))
            .fact("cause", "EIO (Input/output error)")
            .fact("kept", "one\ntwo\n");
        assert_eq!(
            text(&failure),
            "dmpool: cannot read x\n  cause:  EIO (Input/output error)\n  kept:   one\n          two\n"
        );
    }

    #[test]
    fn a_hostile_name_cannot_steer_the_terminal() {
        let said = text(&Failure::refused("cannot open `a\u{1b}[2Jb\r`\nmore").fact("found", "\u{7}"));
        assert_eq!(said, "dmpool: cannot open `a\\u{1b}[2Jb\\r` more\n  found:  \\u{7}\n");
    }
}
