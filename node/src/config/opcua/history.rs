//! Whether outages are filled from the server's history.

use crate::config::reader::Table;
use skerry_bridge::opcua::History;

/// `history`; noted as a problem where it is neither word.
pub(super) fn history(table: &Table<'_>) -> History {
    let history = table.optional("history", |value| match value.string()? {
        "auto" => Ok(History::Auto),
        "off" => Ok(History::Off),
        other => Err(format!("`{other}` is not known: use \"auto\" or \"off\"")),
    });
    history.unwrap_or_default()
}
