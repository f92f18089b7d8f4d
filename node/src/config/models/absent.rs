//! What a binary without models reads in place of `[[model]]`: nothing, as it is refused where the
//! file is read.

use crate::config::reader::Table;
use crate::config::streams::Streams;
use skerry_store::StreamName;
use std::path::Path;

#[derive(Debug)]
pub struct Models;

pub fn read(
    _root: &Table<'_>,
    _base: &Path,
    _data_dir: Option<&Path>,
    _streams: &Streams,
    _stream_of_node: &dyn Fn(&str) -> Result<StreamName, String>,
) -> Option<Models> {
    Some(Models)
}

pub fn outputs(_models: &Models) -> Vec<StreamName> {
    Vec::new()
}

pub fn summary(_models: &Models) -> Vec<String> {
    Vec::new()
}
