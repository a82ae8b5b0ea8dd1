//! What is gone with a container of `--rm`: Docker removes it when it ends, also when somebody stops it, and when Docker starts anew.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::containers::name_of;

/// The length of the name that Docker gives a volume that has none (stringid.GenerateRandomID).
const LENGTH_OF_NAME: usize = 64;

/// A container that Docker removes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vanishing {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The volumes without a name of somebody's that go with it, since no other container has them.
    pub volumes: Vec<Anonymous>,
}

/// A volume that nobody has named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anonymous {
    /// What Docker calls it.
    pub name: String,
    /// Where it is in the container.
    pub place: String,
}

impl fmt::Display for Vanishing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        let places: Vec<_> = self.volumes.iter().map(|volume| volume.place.as_str()).collect();
        match places.as_slice() {
            [] => Ok(()),
            [one] => write!(f, " (with its volume at {one})"),
            several => write!(f, " (with its volumes at {})", several.join(", ")),
        }
    }
}

/// Returns whether Docker removes a container, of which `docker inspect` says this.
pub fn is(inspected: &Value) -> bool {
    inspected.pointer("/HostConfig/AutoRemove").and_then(Value::as_bool) == Some(true)
}

/// Returns whether Docker removes it already, or has tried to: nothing is left of it that could be kept.
pub fn is_going(inspected: &Value) -> bool {
    let is = |key: &str| inspected.pointer("/State").and_then(|state| state.get(key)?.as_bool()) == Some(true);
    is("Dead") || is("RemovalInProgress")
}

/// Returns those of the containers that Docker removes, without those that it removes already.
pub fn still_there(inspected: &[Value]) -> Vec<Vanishing> {
    all(inspected.iter().filter(|it| !is_going(it)))
}

/// Returns those of the containers that Docker removes.
pub fn all<'i>(inspected: impl IntoIterator<Item = &'i Value, IntoIter: Clone>) -> Vec<Vanishing> {
    let inspected = inspected.into_iter();
    let stay: BTreeSet<&str> = inspected.clone().filter(|it| !is(it)).flat_map(mounted).map(|(name, _)| name).collect();
    let vanishing = inspected.filter(|it| is(it));
    let of = |it: &Value| {
        let goes = |name: &str| is_random(name) && !stay.contains(name) && !is_named(it, name);
        let volumes = mounted(it).filter(|(name, _)| goes(name));
        Vanishing {
            id: it.get("Id").and_then(Value::as_str).unwrap_or_default().to_owned(),
            name: name_of(it),
            volumes: volumes
                .map(|(name, place)| Anonymous { name: name.to_owned(), place: place.to_owned() })
                .collect(),
        }
    };
    vanishing.map(of).collect()
}

/// Returns the names of the volumes that go with some of the containers, by their ids, when Docker removes these and no others.
pub fn gone_with(inspected: &[Value], ids: &[&str]) -> BTreeSet<String> {
    let (gone, other): (Vec<_>, Vec<_>) = all(inspected).into_iter().partition(|it| ids.contains(&it.id.as_str()));
    let names = |of: Vec<Vanishing>| of.into_iter().flat_map(|it| it.volumes).map(|volume| volume.name).collect();
    let (gone, other): (BTreeSet<String>, BTreeSet<String>) = (names(gone), names(other));
    gone.difference(&other).cloned().collect()
}

/// Returns the volumes that a container has, each with where.
fn mounted(inspected: &Value) -> impl Iterator<Item = (&str, &str)> {
    let mounts = inspected.get("Mounts").and_then(Value::as_array).into_iter().flatten();
    let volumes = mounts.filter(|mount| mount.get("Type").and_then(Value::as_str) == Some("volume"));
    volumes.filter_map(|mount| Some((mount.get("Name")?.as_str()?, mount.get("Destination")?.as_str()?)))
}

/// Returns whether Docker has made that name up.
fn is_random(name: &str) -> bool {
    name.len() == LENGTH_OF_NAME && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Returns whether somebody has asked for that volume by its name: Docker leaves it where it is.
fn is_named(inspected: &Value, volume: &str) -> bool {
    let list = |key: &str| {
        let list = inspected.pointer("/HostConfig").and_then(|host| host.get(key)).and_then(Value::as_array);
        list.into_iter().flatten()
    };
    let binds = list("Binds").filter_map(Value::as_str).filter_map(|bind| bind.split(':').next());
    let mounts = list("Mounts").filter_map(|mount| mount.get("Source").and_then(Value::as_str));
    binds.chain(mounts).any(|source| source == volume)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_volumes_that_nobody_has_named_or_has_besides_go_with_it() {
        let [anonymous, named, shared, typed] = ["a", "b", "c", "d"].map(|letter| letter.repeat(LENGTH_OF_NAME));
        let volume = |name: &str, place: &str| json!({"Type": "volume", "Name": name, "Destination": place});
        let job = json!({
            "Name": "/job",
            "HostConfig": {"AutoRemove": true, "Binds": [format!("{named}:/b")], "Mounts": [{"Source": typed}]},
            "Mounts": [
                volume(&anonymous, "/a"), volume(&named, "/b"), volume(&shared, "/c"), volume(&typed, "/d"), volume("data", "/e"),
                {"Type": "bind", "Source": "/srv", "Destination": "/srv"},
            ],
        });
        let web = json!({"Name": "/web", "HostConfig": {"AutoRemove": false}, "Mounts": [volume(&shared, "/c")]});
        let mut going = job.clone();
        going["State"]["RemovalInProgress"] = json!(true);
        let found = still_there(&[web.clone(), job.clone(), going]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].to_string(), "job (with its volume at /a)");
        assert_eq!(found[0].volumes[0].name, anonymous);
        // What one that stays for now has, too, stays with it.
        let mut other = job.clone();
        other["Id"] = json!("other");
        let mut first = job;
        first["Id"] = json!("first");
        let alone = [first.clone(), web.clone()];
        assert_eq!(gone_with(&alone, &["first"]), BTreeSet::from([anonymous.clone()]));
        assert_eq!(gone_with(&alone, &[]), BTreeSet::new());
        let both = [first, other, web];
        assert_eq!(gone_with(&both, &["first"]), BTreeSet::new());
        assert_eq!(gone_with(&both, &["first", "other"]), BTreeSet::from([anonymous]));
    }
}
