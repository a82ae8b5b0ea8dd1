//! What the menagerie's parts are called.

/// A web server that runs: ports, the default network, restart policy, labels, odd environment, a page and a file made by
/// hand. Its image is [`WEB_IMAGE`].
pub const WEB: &str = "web";
/// The page in it that was made by hand.
pub const PAGE: &str = "page.html";
/// What is on it.
pub const WRITTEN: &str = "<p>written later</p>\n";
/// Where the host's users find it.
pub const PORT: u16 = 8080;
/// Ended with 0; everything of [`odd_tree`](crate::guest::odd_tree) is in its `/odd`.
pub const ODD: &str = "Odd_One.2-x";
/// Ended with 3; did to its image's `/www` all that [`change`](crate::guest::inmate::change) does.
pub const CHANGED: &str = "changed";
/// Ended with 0; its json-file log was rotated, and its oldest lines are gone.
pub const TALKER: &str = "talker";
/// Paused.
pub const PAUSED: &str = "paused";
/// Killed (137); linked to [`WEB`].
pub const LINKED: &str = "linked";
/// Runs in [`WEB`]'s network and process namespaces.
pub const SIDECAR: &str = "sidecar";
/// Ended with 0; has volumes named and anonymous, a bind mount and a tmpfs.
pub const VOLUMES: &str = "volumes";
/// Ended with 0; has [`VOLUMES`]'s volumes, and its log is the driver `local`'s.
pub const READER: &str = "reader";
/// Runs on the network [`NETWORK`] with a terminal and a health check.
pub const TERMINAL: &str = "terminal";
/// Never started; has about every option there is.
pub const OPTIONS: &str = "options";
/// Never started; its image is gone.
pub const ORPHAN: &str = "orphan";
/// Never started; of the image without a tag.
pub const DANGLING: &str = "of-the-dangling-image";
/// Never started; everything comes from its image, [`DECLARED_IMAGE`]. Its name is the first [`NAME_LIKE_ID`] digits of
/// [`WEB`]'s id.
pub const NAME_LIKE_ID: usize = 8;

/// Built in several layers, of which the later delete and replace files of the earlier.
pub const WEB_IMAGE: &str = "dmpool-test-web:1.0";
/// Another tag of [`WEB_IMAGE`].
pub const WEB_AGAIN: &str = "registry.example.com:5000/team/web:latest";
/// Committed from [`CHANGED`].
pub const COMMITTED_IMAGE: &str = "dmpool-test/odd__name.with-dots/deep:Tag_1.2-rc.3";
/// Declares volumes, user, ports and all else that an image can.
pub const DECLARED_IMAGE: &str = "dmpool-test-declared:1";
/// Was [`ORPHAN`]'s, and is deleted.
pub const GONE_IMAGE: &str = "dmpool-test-gone:1";

/// A network of the user's, with a bridge.
pub const NETWORK: &str = "menagerie-net";

/// A volume with a label, in use.
pub const DATA_VOLUME: &str = "data";
/// A volume that [`VOLUMES`] may not write.
pub const READ_ONLY_VOLUME: &str = "read-only-data";
/// A volume that nobody uses, with an odd tree in `tree`.
pub const FORGOTTEN_VOLUME: &str = "forgotten";
/// A volume whose data is on an NFS server that is not there.
pub const NFS_VOLUME: &str = "elsewhere";
/// A volume whose data is a directory outside of Docker's root.
pub const BOUND_VOLUME: &str = "bound";
