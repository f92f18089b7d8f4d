//! Where a server connects to the node, in place of the node to it.

use crate::config::reader::Table;
use crate::config::units;
use skerry_bridge::opcua::ReverseConnect;

/// `listen` and `server_uri`.
pub(super) fn read(table: &Table<'_>) -> Option<ReverseConnect> {
    let listen = table.optional("listen", units::listen);
    let server_uri = table.optional("server_uri", units::text);
    if table.has("server_uri") && !table.has("listen") {
        let message = "goes together with listen, where that server connects to";
        table.problem("server_uri", message);
    }
    if table.has("listen") && table.has("endpoints") {
        let message = "waits for one server: give its endpoint in place of endpoints";
        table.problem("listen", message);
    }
    if listen.is_some_and(|address| address.port() == 0) {
        table.problem("listen", "needs a port, for the server to connect to");
    }
    Some(ReverseConnect {
        listen: listen?,
        server_uri,
    })
}
