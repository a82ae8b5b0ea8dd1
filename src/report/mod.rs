//! How values are shown: from a value to text or JSON. Nothing here reads, asks or waits.

pub mod choices;
pub mod disks;
pub mod docker_info;
pub mod failure;
pub mod health;
pub mod human;
pub mod json;
pub mod merged;
pub mod migrate;
pub mod plan;
pub mod prometheus;
pub mod rescue;
pub mod resume;
pub mod root_archive;
pub mod status;
pub mod table;
pub mod volumes;

#[cfg(test)]
pub(crate) mod samples;
