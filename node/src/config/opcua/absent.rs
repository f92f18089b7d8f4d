//! What a binary without the OPC-UA client reads in place of `[[opcua]]`: nothing, as it is refused
//! where the file is read.

use crate::component::OPCUA;
use crate::config::reader::Table;
use crate::config::streams::Streams;
use skerry_broker::Config as Mqtt;
use skerry_store::StreamName;
use std::path::Path;

#[derive(Debug)]
pub struct Servers;

pub fn read(
    _root: &Table<'_>,
    _base: &Path,
    _data_dir: Option<&Path>,
    _streams: &Streams,
) -> Option<Servers> {
    Some(Servers)
}

pub fn command_topics(_servers: &Servers) -> Vec<String> {
    Vec::new()
}

pub fn stream_of_node(_servers: Option<&Servers>, _name: &str) -> Result<StreamName, String> {
    Err(OPCUA.lack())
}

pub fn summary(_servers: &Servers, _mqtt: Option<&Mqtt>) -> Vec<String> {
    Vec::new()
}

pub fn warning(_servers: &Servers, _mqtt: Option<&Mqtt>) -> Option<String> {
    None
}
