//! What `skerry demo` runs against, each part a stand-in and named as such: nothing here is
//! linked into a running node's data path.

pub mod central;
pub mod opcua_server;
pub mod plant;
pub mod real;
pub mod sensors;
