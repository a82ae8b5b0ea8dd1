//! What a test inside a guest may ask of the lab.
