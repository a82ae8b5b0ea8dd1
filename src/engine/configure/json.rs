//! Setting members of a JSON object without touching any other byte of its text.
//!
//! The text is read by `serde_json` first: what is scanned here is known to be whole.

use std::ops::Range;

use serde_json::{Map, Value};

/// What a file is indented by when it shows no indentation of its own.
const INDENT: &str = "    ";

/// Why a text is not edited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It is no JSON object: what is wrong with it.
    Damaged(String),
    /// It has that key twice, and which one counts depends on who reads it.
    Twice(String),
}

/// Where the items of an object or an array are in a text.
struct Items {
    /// Just after the bracket that opens it.
    open: usize,
    /// The bracket that closes it.
    close: usize,
    items: Vec<Item>,
}

struct Item {
    /// Its key, in an object.
    key: Option<String>,
    /// The key too, in an object.
    whole: Range<usize>,
    value: Range<usize>,
}

/// Returns the text with `key` set to a string.
///
/// # Errors
/// When the text is no JSON object, or has the key twice.
pub fn set_string(text: &str, key: &str, value: &str) -> Result<String, Unfit> {
    set(text, key, &Value::from(value))
}

/// Returns the text with `key` set to a value.
///
/// # Errors
/// As [`set_string`].
pub fn set(text: &str, key: &str, value: &Value) -> Result<String, Unfit> {
    let json = value.to_string();
    let (text, items) = object(text)?;
    match member(&items, key)? {
        Some(item) => Ok(replaced(&text, item.value.clone(), &json)),
        None => Ok(inserted(&text, &items, &format!("{}: {json}", Value::from(key)))),
    }
}

/// Returns the text with these strings added at the end of the array `key`, which is made when it is not there or null.
///
/// # Errors
/// When the text is no JSON object, has the key twice, or something else than an array there.
pub fn append_strings(text: &str, key: &str, values: &[String]) -> Result<String, Unfit> {
    let (text, items) = object(text)?;
    let quoted: Vec<String> = values.iter().map(|value| Value::from(value.as_str()).to_string()).collect();
    let Some(item) = member(&items, key)? else {
        let array = array_of(&quoted, indent_of(&text, &items));
        return Ok(inserted(&text, &items, &format!("{}: {array}", Value::from(key))));
    };
    match text.get(item.value.clone()).unwrap_or_default() {
        "null" => Ok(replaced(&text, item.value.clone(), &array_of(&quoted, indent_of(&text, &items)))),
        array if array.starts_with('[') => {
            let at = item.value.start;
            quoted.iter().try_fold(text.clone(), |text, value| {
                let items = items_at(&text, at).ok_or_else(|| Unfit::Damaged(format!("its `{key}` has no end")))?;
                Ok(inserted(&text, &items, value))
            })
        }
        _ => Err(Unfit::Damaged(format!("its `{key}` is no array"))),
    }
}

/// Returns the text without those strings of the array `key` that are meant; an array that is not there has none.
///
/// # Errors
/// As [`append_strings`].
pub fn remove_strings(text: &str, key: &str, is_meant: impl Fn(&str) -> bool) -> Result<String, Unfit> {
    let (mut text, items) = object(text)?;
    let Some(item) = member(&items, key)? else { return Ok(text) };
    let at = item.value.start;
    match text.get(item.value.clone()).unwrap_or_default() {
        "null" => return Ok(text),
        array if array.starts_with('[') => {}
        _ => return Err(Unfit::Damaged(format!("its `{key}` is no array"))),
    }
    loop {
        let Items { open, close, items } =
            items_at(&text, at).ok_or_else(|| Unfit::Damaged(format!("its `{key}` has no end")))?;
        let string = |item: &Item| serde_json::from_str::<String>(text.get(item.value.clone())?).ok();
        let Some(found) = items.iter().position(|item| string(item).is_some_and(|value| is_meant(&value))) else {
            return Ok(text);
        };
        let (before, own, after) =
            (found.checked_sub(1).and_then(|at| items.get(at)), items.get(found), items.get(found + 1));
        let range = match (before, own, after) {
            (_, Some(own), Some(after)) => own.whole.start..after.whole.start,
            (Some(before), Some(own), None) => before.whole.end..own.whole.end,
            (None, Some(_), None) => open..close,
            (_, None, _) => return Ok(text),
        };
        text.replace_range(range, "");
    }
}

/// Returns a text that is an object, and where its members are. A file with nothing in it is an empty object to Docker.
fn object(text: &str) -> Result<(String, Items), Unfit> {
    let text = if text.trim().is_empty() { "{}\n".to_owned() } else { text.to_owned() };
    serde_json::from_str::<Map<String, Value>>(&text).map_err(|error| Unfit::Damaged(error.to_string()))?;
    let open = text.find('{').unwrap_or_default();
    let items = items_at(&text, open).ok_or_else(|| Unfit::Damaged("it has no end".to_owned()))?;
    Ok((text, items))
}

fn member<'i>(items: &'i Items, key: &str) -> Result<Option<&'i Item>, Unfit> {
    let mut found = items.items.iter().filter(|item| item.key.as_deref() == Some(key));
    match (found.next(), found.next()) {
        (_, Some(_)) => Err(Unfit::Twice(key.to_owned())),
        (found, None) => Ok(found),
    }
}

/// Takes the object or array apart that begins at a byte; nothing when none does.
fn items_at(text: &str, at: usize) -> Option<Items> {
    let bytes = text.as_bytes();
    let is_object = match bytes.get(at)? {
        b'{' => true,
        b'[' => false,
        _ => return None,
    };
    let mut items = Vec::new();
    let mut from = past_space(bytes, at + 1);
    loop {
        if matches!(bytes.get(from)?, b'}' | b']') {
            return Some(Items { open: at + 1, close: from, items });
        }
        let start = from;
        let mut key = None;
        if is_object {
            let end = past_value(bytes, from)?;
            key = Some(serde_json::from_str(text.get(from..end)?).ok()?);
            from = past_space(bytes, past_space(bytes, end) + 1);
        }
        let end = past_value(bytes, from)?;
        items.push(Item { key, whole: start..end, value: from..end });
        from = past_space(bytes, end);
        if bytes.get(from)? == &b',' {
            from = past_space(bytes, from + 1);
        }
    }
}

fn past_space(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// Returns where the value that begins at a byte has ended.
fn past_value(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    let mut depth = 0_usize;
    loop {
        match bytes.get(at) {
            Some(b'"') => {
                at = past_string(bytes, at)?;
                if depth == 0 {
                    return Some(at);
                }
                continue;
            }
            Some(b'{' | b'[') => depth += 1,
            Some(b'}' | b']' | b',') if depth == 0 => return Some(at),
            Some(b'}' | b']') => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            Some(b) if b.is_ascii_whitespace() && depth == 0 => return Some(at),
            Some(_) => {}
            None => return None,
        }
        at += 1;
    }
}

fn past_string(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from + 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

fn replaced(text: &str, range: Range<usize>, with: &str) -> String {
    let mut text = text.to_owned();
    text.replace_range(range, with);
    text
}

/// Returns the text with one more item at the end of a container, set apart from the one before as that one is.
fn inserted(text: &str, items: &Items, item: &str) -> String {
    let Some(last) = items.items.last() else {
        let inner = text.get(items.open..items.close).unwrap_or_default();
        let is_array = text.get(..items.open).is_some_and(|before| before.ends_with('['));
        let (before, after) = match (is_array, inner.contains('\n')) {
            (true, false) => (String::new(), ""),
            (_, true) => (format!("\n{INDENT}"), ""),
            (false, false) => (format!("\n{INDENT}"), "\n"),
        };
        return replaced(text, items.open..items.open, &format!("{before}{item}{after}"));
    };
    let space = match gap(text, items) {
        "" => " ",
        space => space,
    };
    replaced(text, last.whole.end..last.whole.end, &format!(",{space}{item}"))
}

/// Returns the white space before the last item.
fn gap<'t>(text: &'t str, items: &Items) -> &'t str {
    let Some(last) = items.items.last() else { return "" };
    let before = text.get(items.open..last.whole.start).unwrap_or_default();
    before.get(before.trim_end().len()..).unwrap_or_default()
}

/// Returns what the members of an object are indented by; nothing when they are all on one line.
fn indent_of<'t>(text: &'t str, items: &Items) -> Option<&'t str> {
    if items.items.is_empty() {
        return Some(INDENT);
    }
    gap(text, items).rsplit_once('\n').map(|(_, indent)| indent)
}

fn array_of(items: &[String], indent: Option<&str>) -> String {
    let Some(indent) = indent else { return format!("[{}]", items.join(", ")) };
    let deeper = if indent.is_empty() { INDENT.to_owned() } else { indent.repeat(2) };
    let items: Vec<_> = items.iter().map(|item| format!("\n{deeper}{item}")).collect();
    format!("[{}\n{indent}]", items.join(","))
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
