//! The lab's own suite.
