//! `skerry opcua write` and `call`: what an engineer does to a machine by hand, seeing what it was
//! and what it is.

use super::arguments::{OpcuaCall, OpcuaWrite};
use super::{Ended, addresses, answered, print, print_json, visit};
use skerry_bridge::opcua::{self, NodeAddress};

pub(super) async fn write(args: &OpcuaWrite) -> Result<(), Ended> {
    let (visit, node) = (visit(&args.server)?, address(&args.node)?);
    let writing = opcua::write(&visit, &node, &args.value, args.data_type.as_deref());
    let written = answered(&args.server.url, args.server.timeout, writing).await?;
    match args.json {
        true => print_json(&written),
        false => print(&format!(
            "{}: {} -> {}",
            written.node, written.before, written.after
        )),
    }
}

pub(super) async fn call(args: &OpcuaCall) -> Result<(), Ended> {
    let visit = visit(&args.server)?;
    let (object, method) = (address(&args.object)?, address(&args.method)?);
    let calling = opcua::call(&visit, &object, &method, &args.arguments);
    let called = answered(&args.server.url, args.server.timeout, calling).await?;
    if args.json {
        return print_json(&called);
    }
    let outputs: Vec<String> = called.outputs.iter().map(ToString::to_string).collect();
    match outputs.is_empty() {
        true => print("done"),
        false => print(&outputs.join("\n")),
    }
}

fn address(node: &str) -> Result<NodeAddress, Ended> {
    let mut parsed = addresses(&[node.to_owned()])?;
    Ok(parsed.pop().expect("one for one"))
}
