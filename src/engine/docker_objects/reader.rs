//! Reading a root's many small files, each within its limit and all of them within one.

use std::io;

use serde_json::Value;

use super::fields;
use crate::engine::bolt::BadBolt;
use crate::engine::docker_root::{Problem, folder};
use crate::engine::small_file::Directory;

/// No configuration, no list of tags is near this.
const LARGEST: u64 = 16 << 20;
/// What all that is read of one root may take of memory: a hostile one must not take the machine's.
const ALL: u64 = 512 << 20;
/// What a JSON value takes by itself, and with its hash and its key in an object (`serde_json` with `preserve_order`).
const VALUE: u64 = size_of::<Value>() as u64;
const ENTRY: u64 = VALUE + size_of::<(usize, String)>() as u64;
/// What an allocation takes beside what was asked for, at most.
const ROUNDED: u64 = 32;
/// A layer's name, a size, a digest.
const LARGEST_LINE: u64 = 512;
/// How many names a folder may hold; Docker's own limit on a layer's depth is 125, and nobody has this many containers.
const MOST_NAMES: usize = 1_000_000;

/// What reads, and what it met.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) problems: Vec<Problem>,
    left: u64,
}

impl Default for Reader {
    fn default() -> Self {
        Self { problems: Vec::new(), left: ALL }
    }
}

impl Reader {
    /// Enters a folder; one that is not there is nothing, one that cannot be entered is nothing and a problem.
    pub(super) fn folder(&mut self, within: &Directory, name: &str) -> Option<Directory> {
        folder(Some(within), name, &mut self.problems)
    }

    /// Enters folders one after the other.
    pub(super) fn folders(&mut self, within: &Directory, names: &[&str]) -> Option<Directory> {
        let (first, rest) = names.split_first()?;
        rest.iter().try_fold(self.folder(within, first)?, |folder, name| self.folder(&folder, name))
    }

    /// Returns the names in a folder that Docker may have given; others are problems.
    pub(super) fn names(&mut self, within: &Directory) -> Vec<String> {
        let names = match within.names() {
            Ok(names) => names,
            Err(error) => {
                self.problem(within, None, error.to_string());
                return Vec::new();
            }
        };
        if names.len() > MOST_NAMES {
            self.problem(within, None, format!("it holds more than {MOST_NAMES} names; the rest was not read"));
        }
        let mut found = Vec::new();
        for name in names.into_iter().take(MOST_NAMES) {
            match name.to_str().filter(|name| is_name(name)) {
                Some(name) => found.push(name.to_owned()),
                // What somebody else has left; Docker's own temporary files begin so.
                None if name.to_string_lossy().starts_with('.') => {}
                None => self.problem(within, name.to_str(), "its name is none that Docker gives".to_owned()),
            }
        }
        found
    }

    /// Returns the bytes of a file; one that is not there is nothing, one that cannot be read is nothing and a problem.
    pub(super) fn bytes(&mut self, within: &Directory, name: &str) -> Option<Vec<u8>> {
        self.limited(within, name, LARGEST)
    }

    fn limited(&mut self, within: &Directory, name: &str, limit: u64) -> Option<Vec<u8>> {
        if self.left == 0 {
            self.problem(
                within,
                Some(name),
                format!("what was read of this root before takes {} MiB of memory", ALL >> 20),
            );
            return None;
        }
        match within.read(name, limit.min(self.left)) {
            Ok(bytes) => {
                self.left = self.left.saturating_sub(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                Some(bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.problem(within, Some(name), error.to_string());
                None
            }
        }
    }

    /// Returns the JSON object in a file; as [`Self::bytes`].
    pub(super) fn json(&mut self, within: &Directory, name: &str) -> Option<Value> {
        let bytes = self.bytes(within, name)?;
        let memory = at_most(&bytes);
        if memory > self.left {
            self.problem(within, Some(name), format!("its values may take {} MiB of memory", memory >> 20));
            return None;
        }
        let value = fields::parse(&bytes).map_err(|error| self.problem(within, Some(name), error.to_string())).ok()?;
        self.left = self.left.saturating_sub(taken(&value));
        Some(value)
    }

    /// Returns the JSON object in a file that must be there.
    pub(super) fn wanted_json(&mut self, within: &Directory, name: &str) -> Option<Value> {
        let before = self.problems.len();
        let found = self.json(within, name);
        if found.is_none() && self.problems.len() == before {
            self.problem(within, Some(name), "it is missing".to_owned());
        }
        found
    }

    /// Returns what a parser makes of a database; nothing where there is none. A daemon that runs may write while it is read: what is
    /// damaged is read again.
    pub(super) fn database<T: Default>(
        &mut self,
        within: &Directory,
        name: &str,
        parse: impl Fn(&[u8]) -> Result<T, BadBolt>,
    ) -> T {
        let mut why = None;
        for _ in 0..3 {
            let Some(bytes) = self.bytes(within, name) else { return T::default() };
            match parse(&bytes) {
                Ok(found) => return found,
                Err(error) => why = Some(error.to_string()),
            }
        }
        why.into_iter().for_each(|why| self.problem(within, Some(name), why));
        T::default()
    }

    /// Returns the one line of a file; as [`Self::bytes`].
    pub(super) fn line(&mut self, within: &Directory, name: &str) -> Option<String> {
        let bytes = self.limited(within, name, LARGEST_LINE)?;
        let line = String::from_utf8(bytes).ok().map(|text| text.trim().to_owned());
        match line.filter(|line| !line.is_empty() && !line.contains(char::is_control)) {
            Some(line) => Some(line),
            None => {
                self.problem(within, Some(name), "it is empty, or no line of text".to_owned());
                None
            }
        }
    }

    /// Returns the name of a folder or file that stands in a file: one that leads nowhere else.
    pub(super) fn name(&mut self, within: &Directory, name: &str) -> Option<String> {
        let line = self.line(within, name)?;
        if is_name(&line) {
            return Some(line);
        }
        self.problem(within, Some(name), format!("`{line}` is no name that Docker gives"));
        None
    }

    pub(super) fn problem(&mut self, within: &Directory, name: Option<&str>, why: String) {
        let path = name.map_or_else(|| within.path().to_owned(), |name| within.path().join(name));
        self.problems.push(Problem { path, why });
    }

    /// Runs a reading and returns the problems that it met beside what it returns.
    pub(super) fn apart<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> (T, Vec<Problem>) {
        let before = self.problems.len();
        let value = read(self);
        let problems = self.problems.split_off(before);
        (value, problems)
    }
}

/// Returns how much memory the values in a JSON text may take beside the text: `[`, `{` or `,` begins each, and what grows has
/// room for twice as many.
fn at_most(text: &[u8]) -> u64 {
    let of_byte = |byte: &u8| match byte {
        b'{' => 4 * ENTRY + 4 * ROUNDED,
        b'[' => 4 * VALUE + ROUNDED,
        b',' => 2 * ENTRY + 3 * ROUNDED,
        _ => 0,
    };
    text.iter().map(of_byte).fold(0, u64::saturating_add)
}

/// Returns how much memory a value takes beside itself.
fn taken(value: &Value) -> u64 {
    let of_text = |text: &String| text.capacity() as u64 + if text.capacity() == 0 { 0 } else { ROUNDED / 2 };
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => of_text(text),
        Value::Array(items) => items.capacity() as u64 * VALUE + items.iter().map(taken).sum::<u64>(),
        Value::Object(entries) if entries.is_empty() => 0,
        Value::Object(entries) => {
            // Eight places of a table, each with a byte beside it, are for seven entries; it is a power of two long.
            let places = ((entries.len() as u64 * 8).div_ceil(7)).max(4).next_power_of_two();
            let within = entries.iter().map(|(key, value)| of_text(key) + taken(value)).sum::<u64>();
            places * (ENTRY + 9) + ROUNDED + within
        }
    }
}

/// Whether a text is a name that Docker gives to folders and files: an id, a layer's or a volume's name.
pub(super) fn is_name(text: &str) -> bool {
    let first = text.bytes().next();
    first.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && text.len() <= 255
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-+".contains(&b))
}

/// Whether a text has the 64 digits of Docker's ids, which are also the names of volumes that nobody named.
pub fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::fuzzing::objects::root;

    #[test]
    fn no_text_takes_more_than_is_reckoned_before() {
        let list = |item: &str, count: usize| format!("[{}]", vec![item; count].join(","));
        let object = |count: usize| {
            let entries: Vec<_> = (0..count).map(|number| format!("\"{number}\":\"a\"")).collect();
            format!("{{{}}}", entries.join(","))
        };
        let mut texts: Vec<_> = ["1", "{}", "[]", r#""a""#, "[1]", r#"{"a":1}"#, r#"{"a":{"a":[""]}}"#]
            .iter()
            .flat_map(|item| [1, 2, 5, 9, 1025].map(|count| list(item, count)))
            .collect();
        texts.extend([1, 3, 4, 7, 8, 14, 15, 57, 449, 1793].map(object));
        for text in texts {
            let value: Value = serde_json::from_str(&text).unwrap();
            let (before, after) = (at_most(text.as_bytes()) + text.len() as u64, taken(&value));
            assert!(after <= before, "{after} > {before}: {}", text.get(..60).unwrap_or(&text));
        }
    }

    #[test]
    fn what_a_real_machine_has_fits() {
        let dead = root("20.10");
        let containers = Directory::open(&dead.root()).unwrap().enter("containers").unwrap();
        let mut reader = Reader::default();
        let names = reader.names(&containers);
        for name in &names {
            let folder = containers.enter(name).unwrap();
            assert!(["config.v2.json", "hostconfig.json"].iter().all(|file| reader.json(&folder, file).is_some()));
        }
        let each = (ALL - reader.left) / names.len() as u64;
        assert!(each * 7000 < ALL, "{each} bytes for each container");
    }
}
