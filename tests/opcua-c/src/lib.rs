//! Fetches the C sources; see Cargo.toml.
