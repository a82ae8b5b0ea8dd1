//! By what a pool is known over time: in the history's file, and in the labels of metrics.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::pool::{Maker, PoolReport, User};

/// A pool's identity. Docker's own pool is known by its root: its dm name has the root's inode in it, and is another one
/// when the root has moved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// Its dm name; nothing for a pool that Docker has made for its root.
    pub pool: Option<String>,
    /// Who uses it, in one word: `docker`, `containerd`, `unknown`.
    pub user: String,
    /// The user's directory, when it has one.
    pub root: Option<String>,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.pool, &self.root) {
            (Some(pool), _) => f.write_str(pool),
            (None, Some(root)) => write!(f, "{}'s pool in {root}", self.user),
            (None, None) => write!(f, "{}'s pool", self.user),
        }
    }
}

impl PoolReport {
    /// Returns by what the pool is known over time.
    pub fn identity(&self) -> Identity {
        let (user, root) = match &self.user {
            User::Docker { root } => ("docker", Some(root)),
            User::Containerd { root_path, .. } => ("containerd", root_path.as_ref()),
            User::Unknown => ("unknown", None),
        };
        let dockers_own = self.maker == Maker::Docker && root.is_some();
        Identity {
            pool: (!dockers_own).then(|| self.name.clone()),
            user: user.to_owned(),
            root: root.map(|root| root.to_string_lossy().into_owned()),
        }
    }
}

/// Returns the identities of a machine's pools, in their order, no two the same: a second pool with the same one (the
/// old pool of a root that has moved, say) has its dm name besides.
pub fn identities(pools: &[&PoolReport]) -> Vec<Identity> {
    let mut given: Vec<Identity> = Vec::new();
    for pool in pools {
        let mut identity = pool.identity();
        if given.contains(&identity) {
            identity.pool = Some(pool.name.clone());
        }
        given.push(identity);
    }
    given
}
