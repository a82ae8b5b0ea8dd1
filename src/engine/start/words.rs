//! Command lines taken apart into words as systemd does (systemd.service(5), "Command lines").

use std::collections::BTreeMap;

/// The variables that a command line may name.
pub type Variables = BTreeMap<String, String>;

/// The longest a word can be that a program is started with (`MAX_ARG_STRLEN`, linux/binfmts.h). Variables that hold each
/// other twice over have no end otherwise.
const LONGEST_WORD: usize = 128 << 10;
/// The most that a program can be started with, all words together (a quarter of the usual stack, execve(2)).
const LONGEST_LINE: usize = 2 << 20;

/// How a backslash is read outside of quotes and in double ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backslash {
    /// As C reads it: `\n`, `\x20`, `\040`; one that C does not know stays as it is.
    C,
    /// It takes the meaning from whatever follows.
    Plain,
}

/// Takes a text apart at white space; quotes hold together and are taken off. One that is never closed ends with the text.
pub fn split(text: &str, backslash: Backslash) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match (c, quote) {
            (_, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('\\', _) => {
                let word = word.get_or_insert_default();
                match backslash {
                    Backslash::Plain => word.extend(rest.next()),
                    Backslash::C => unescape(&mut rest, word),
                }
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Reads what follows a backslash.
fn unescape(rest: &mut std::str::Chars<'_>, word: &mut String) {
    let number = |rest: &mut std::str::Chars<'_>, digits: usize, radix: u32| {
        let text: String = rest.clone().take(digits).collect();
        let code = (text.len() == digits).then(|| u32::from_str_radix(&text, radix).ok()).flatten()?;
        rest.nth(digits - 1);
        char::from_u32(code)
    };
    let Some(c) = rest.next() else { return };
    let read = match c {
        'a' => Some('\x07'),
        'b' => Some('\x08'),
        'f' => Some('\x0c'),
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        'v' => Some('\x0b'),
        's' => Some(' '),
        '\\' | '"' | '\'' => Some(c),
        'x' => number(rest, 2, 16),
        'u' => number(rest, 4, 16),
        '0'..='7' => {
            let from_digit: String = std::iter::once(c).chain(rest.clone().take(2)).collect();
            let read =
                u32::from_str_radix(&from_digit, 8).ok().filter(|_| from_digit.len() == 3).and_then(char::from_u32);
            if read.is_some() {
                rest.nth(1);
            }
            read
        }
        _ => None,
    };
    match read {
        Some(read) => word.push(read),
        None => word.extend(['\\', c]),
    }
}

/// Puts the variables into words: a word that is `$NAME` becomes as many words as its value has, `${NAME}` is put in
/// anywhere as it is, `$$` is a dollar sign. A variable that is not there is nothing. What is too long to start a program
/// with is cut.
pub fn expand(words: &[String], variables: &Variables) -> Vec<String> {
    let mut expanded = Vec::new();
    let mut room = LONGEST_LINE;
    for word in words {
        let put_in = match word.strip_prefix('$').filter(|name| is_name(name)) {
            Some(name) => split(variables.get(name).map_or("", String::as_str), Backslash::Plain),
            None => vec![braced(word, variables)],
        };
        for word in put_in {
            // Each word has a NUL behind it.
            let Some(left) = room.checked_sub(word.len() + 1) else { return expanded };
            room = left;
            expanded.push(word);
        }
    }
    expanded
}

fn braced(word: &str, variables: &Variables) -> String {
    let mut text = String::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once('$') {
        push(&mut text, before);
        rest = match (after.strip_prefix('$'), in_braces(after)) {
            (Some(after), _) => {
                push(&mut text, "$");
                after
            }
            (None, Some((name, after))) => {
                push(&mut text, variables.get(name).map_or("", String::as_str));
                after
            }
            (None, None) => {
                push(&mut text, "$");
                after
            }
        };
    }
    push(&mut text, rest);
    text
}

/// Puts variables into a line of shell, with and without braces: what `sh -c '…'` in old units does. Quotes are not
/// looked at. What is too long for one word is cut.
pub fn expand_shell(line: &str, variables: &Variables) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('$') {
        push(&mut text, before);
        let bare = after.split_at_checked(length_of_name(after)).filter(|(name, _)| is_name(name));
        match in_braces(after).or(bare) {
            Some((name, after)) => {
                push(&mut text, variables.get(name).map_or("", String::as_str));
                rest = after;
            }
            None => {
                push(&mut text, "$");
                rest = after;
            }
        }
    }
    push(&mut text, rest);
    text
}

/// Returns the name in braces that a text begins with, and what follows it.
fn in_braces(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('{')?;
    let (name, rest) = inner.split_at_checked(length_of_name(inner))?;
    rest.strip_prefix('}').filter(|_| is_name(name)).map(|rest| (name, rest))
}

/// Returns how many bytes at the beginning of a text can be of a name.
fn length_of_name(text: &str) -> usize {
    text.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(text.len())
}

/// Puts a piece behind a text, as far as a word may go.
fn push(text: &mut String, piece: &str) {
    let room = LONGEST_WORD.saturating_sub(text.len());
    text.push_str(piece.get(..piece.floor_char_boundary(room)).unwrap_or_default());
}

/// Returns whether a text is what a variable can be called.
pub fn is_name(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn variables() -> Variables {
        let pairs = [("OPTIONS", "--debug  --graph='/srv/a b'"), ("ROOT", "/srv/d"), ("EMPTY", "")];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn words_are_cut_as_systemd_cuts_them() {
        let cut = |text| split(text, Backslash::C);
        assert_eq!(cut("  /usr/bin/dockerd -H fd://  "), ["/usr/bin/dockerd", "-H", "fd://"]);
        assert_eq!(cut(r#"a "b c" 'd "e' f"g h"i "" "#), ["a", "b c", "d \"e", "fg hi", ""]);
        assert_eq!(cut(r#"a\x20b c\td \s \q \040 \\"#), ["a b", "c\td", " ", "\\q", " ", "\\"]);
        assert_eq!(cut("\"never closed"), ["never closed"]);
        assert_eq!(split(r"a\ b \n", Backslash::Plain), ["a b", "n"]);
        assert!(cut(" \t ").is_empty());
    }

    #[test]
    fn a_variable_alone_is_many_words_and_in_braces_one() {
        let line = ["dockerd", "$OPTIONS", "--data-root=${ROOT}", "${OPTIONS}", "$NONE", "$EMPTY", "a$ROOT", "$$HOME"];
        assert_eq!(
            expand(&line.map(str::to_owned), &variables()),
            [
                "dockerd",
                "--debug",
                "--graph=/srv/a b",
                "--data-root=/srv/d",
                "--debug  --graph='/srv/a b'",
                "a$ROOT",
                "$HOME"
            ]
        );
    }

    #[test]
    fn a_shell_puts_in_both_kinds() {
        assert_eq!(expand_shell("exec d $ROOT/x ${ROOT} $NONE$ 2>&1", &variables()), "exec d /srv/d/x /srv/d $ 2>&1");
    }

    #[test]
    fn variables_that_hold_each_other_come_to_an_end() {
        let long: Variables = [("A".to_owned(), "ä b ".repeat(LONGEST_WORD / 5))].into();
        let many = "$A".repeat(100);
        assert_eq!(expand_shell(&many, &long).len(), LONGEST_WORD);
        let words = expand(&vec!["$A".to_owned(); 100], &long);
        let length: usize = words.iter().map(|word| word.len() + 1).sum();
        assert!((LONGEST_LINE - 3..=LONGEST_LINE).contains(&length), "{length}");
        assert_eq!(expand(&["${A}".repeat(100)], &long), [expand_shell(&many, &long)]);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[\\PC\\\\\"'$x0-7{} ]{0,60}") {
            for backslash in [Backslash::C, Backslash::Plain] {
                let words = split(&text, backslash);
                let _ = expand(&words, &variables());
            }
            let _ = expand_shell(&text, &variables());
        }

        #[test]
        fn quoted_words_come_back(words in proptest::collection::vec("[a-z $=/-]{0,12}", 0..6)) {
            let line: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
            prop_assert_eq!(split(&line.join("  "), Backslash::C), words);
        }
    }
}
