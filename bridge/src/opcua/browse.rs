//! `skerry opcua browse URL`: what a server has to offer, as configuration to paste.

use super::config::Security;
use super::error::Error;
use super::user::User;
use super::value::{Sample, Value};
use super::visit::{Visit, read_known};
use super::wire::{Class, Session};
use crate::Boxed;
use std::collections::HashSet;

/// The Objects folder (Part 5, 8.2.4), below which the plant stands.
const OBJECTS_FOLDER: &str = "i=85";
/// Nodes browsed or read with one request: within the limits of small PLCs.
const NODES_AT_ONCE: usize = 100;

/// Where and how far to look.
#[derive(Debug, Clone)]
pub struct Browse {
    pub at: Visit,
    /// Levels below the Objects folder.
    pub depth_max: usize,
    /// Variables listed.
    pub variables_max: usize,
}

impl Browse {
    /// A look ten levels deep, at up to ten thousand variables.
    #[must_use]
    pub fn new(at: Visit) -> Self {
        Self {
            at,
            depth_max: 10,
            variables_max: 10_000,
        }
    }
}

/// A variable of the server.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Variable {
    /// Browse names from the Objects folder down, joined by `/`.
    pub path: String,
    /// As the server numbers it today: `ns=2;s=…`.
    pub id: String,
    /// As to be configured: by namespace URI, which survives a change of the numbering.
    pub stable_id: String,
    /// Name of its data type.
    pub data_type: String,
    /// Its present value as JSON.
    pub value: String,
    /// StatusCode of that value.
    pub status: u32,
    /// Unit and range, where the server has them: `°C (-20 to 120)`.
    pub measured_in: String,
}

/// What was found.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Listing {
    pub variables: Vec<Variable>,
    /// Whether a limit of [`Browse`] cut it short.
    pub truncated: bool,
}

/// Walks the server's address space from the Objects folder: variables only, without the
/// server's description of itself and without properties of variables.
///
/// # Errors
/// When the server cannot be reached or refuses; see the text of the error.
pub fn browse(look: &Browse) -> Boxed<'_, Result<Listing, Error>> {
    Box::pin(visit(look))
}

async fn visit(look: &Browse) -> Result<Listing, Error> {
    let session = look.at.session().await?;
    let listing = walk(&session, look).await;
    session.leave(false).await;
    listing
}

struct Found {
    path: String,
    node: String,
}

async fn walk(session: &Session, look: &Browse) -> Result<Listing, Error> {
    let namespaces = session.namespaces().await?;
    let mut seen: HashSet<String> = HashSet::from([OBJECTS_FOLDER.to_owned()]);
    let mut level = vec![Found {
        path: String::new(),
        node: OBJECTS_FOLDER.to_owned(),
    }];
    let mut variables: Vec<Found> = Vec::new();
    let mut truncated = false;
    for depth in 0.. {
        if level.is_empty() {
            break;
        }
        if depth == look.depth_max {
            truncated = true;
            break;
        }
        let mut below = Vec::new();
        for some in level.chunks(NODES_AT_ONCE) {
            let nodes: Vec<String> = some.iter().map(|found| found.node.clone()).collect();
            let children = session.children(&nodes, look.variables_max).await?;
            for (parent, children) in some.iter().zip(children) {
                for child in children {
                    // What the standard itself puts below Objects describes the server.
                    let standard = depth == 0 && !child.node.starts_with("ns=");
                    if standard || child.class == Class::Other || child.property {
                        continue;
                    }
                    if !seen.insert(child.node.clone()) {
                        continue;
                    }
                    let path = match parent.path.as_str() {
                        "" => child.name,
                        above => format!("{above}/{}", child.name),
                    };
                    if child.class == Class::Variable {
                        if variables.len() == look.variables_max {
                            truncated = true;
                            continue;
                        }
                        variables.push(Found {
                            path: path.clone(),
                            node: child.node.clone(),
                        });
                    }
                    below.push(Found {
                        path,
                        node: child.node,
                    });
                }
            }
            if truncated {
                break;
            }
        }
        if truncated {
            break;
        }
        level = below;
    }
    let mut variables = describe(session, &namespaces, variables).await?;
    // Servers list in any order; people look for names.
    variables.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(Listing {
        variables,
        truncated,
    })
}

async fn describe(
    session: &Session,
    namespaces: &[String],
    found: Vec<Found>,
) -> Result<Vec<Variable>, Error> {
    let mut variables = Vec::with_capacity(found.len());
    for some in found.chunks(NODES_AT_ONCE) {
        let nodes: Vec<String> = some.iter().map(|found| found.node.clone()).collect();
        let values = read_known(session, &nodes).await?;
        let types = session.data_types(&nodes).await?;
        let type_names = session.names(&types).await?;
        for ((found, sample), data_type) in some.iter().zip(values).zip(type_names) {
            let measured_in = measured_in(session, &sample);
            let value = match sample.value {
                Value::Typed(_, value) => *value,
                value => value,
            };
            variables.push(Variable {
                path: found.path.clone(),
                id: found.node.clone(),
                stable_id: stable(&found.node, namespaces),
                data_type,
                value: serde_json::to_string(&value).unwrap_or_default(),
                status: sample.status,
                measured_in,
            });
        }
    }
    Ok(variables)
}

fn measured_in(session: &Session, sample: &Sample) -> String {
    let unit = sample.unit.as_deref().map(String::from_utf8_lossy);
    let range = session.about(sample.handle).and_then(|about| about.range);
    let range = range.map(|(low, high)| format!("({low} to {high})").into());
    let both: Vec<_> = unit.into_iter().chain(range).collect();
    both.join(" ")
}

/// `ns=2;s=X` as `nsu=URI;s=X`, where the server names its namespace 2.
fn stable(node: &str, namespaces: &[String]) -> String {
    let by_uri = || {
        let (index, identifier) = node.strip_prefix("ns=")?.split_once(';')?;
        let uri = namespaces.get(index.parse::<usize>().ok()?)?;
        // Ours would be read wrongly with a part that looks like an identifier in it.
        let plain = !uri.is_empty() && !uri.contains(';');
        plain.then(|| format!("nsu={uri};{identifier}"))
    };
    by_uri().unwrap_or_else(|| node.to_owned())
}

/// The listing as an `[[opcua]]` section of the configuration, ready to paste.
#[must_use]
pub fn config_text(look: &Browse, name: &str, listing: &Listing) -> String {
    let quoted = |text: &str| {
        // A TOML basic string escapes as JSON does.
        serde_json::Value::from(text).to_string()
    };
    let mut text = format!(
        "[[opcua]]\nname = {}\nendpoint = {}\nstream = \"machines\"\n",
        quoted(name),
        quoted(look.at.endpoint.as_str()),
    );
    if let Some(policy) = look.at.security.policy() {
        let mode = match look.at.security {
            Security::SignAndEncrypt(_) => "SignAndEncrypt",
            _ => "Sign",
        };
        text += &format!("security_policy = \"{policy}\"\nsecurity_mode = \"{mode}\"\n");
    }
    for (key, value) in look.at.user.iter().flat_map(User::keys) {
        text += &format!("{key} = {}\n", quoted(&value));
    }
    text += "publishing_interval = \"500ms\"\nnodes = [\n";
    let mut used = HashSet::new();
    for variable in &listing.variables {
        let mut name = variable.path.clone();
        for number in 2.. {
            if used.insert(name.clone()) {
                break;
            }
            name = format!("{} {number}", variable.path);
        }
        // A comment ends with its line: what the server says must not leave it.
        let about: String = [&*variable.data_type, &variable.value, &variable.measured_in]
            .join(" ")
            .chars()
            .filter(|c| !c.is_control())
            .take(60)
            .collect();
        let about = about.trim_end();
        text += &format!(
            "  {{ name = {}, id = {}, sampling = \"500ms\" }}, # {about}\n",
            quoted(&name),
            quoted(&variable.stable_id),
        );
    }
    text += "]\n";
    if listing.truncated {
        text += "# The server has more than is listed here: raise --depth or --nodes.\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_become_configuration() {
        let variable = |path: &str, value: &str| Variable {
            path: path.to_owned(),
            id: "ns=2;s=x".to_owned(),
            stable_id: stable("ns=2;s=x", &["".into(), "urn:a".into(), "urn:b".into()]),
            data_type: "Double".to_owned(),
            value: value.to_owned(),
            status: 0,
            measured_in: "bar (0 to 16)".to_owned(),
        };
        let listing = Listing {
            variables: vec![
                variable("Pump \"1\"/P", "1.5"),
                variable("Pump \"1\"/P", "a\nb = 2"),
            ],
            truncated: false,
        };
        let look = Browse::new(Visit::new("opc.tcp://plc".parse().unwrap()));
        let text = config_text(&look, "plc", &listing);
        assert!(text.contains(
            r#"{ name = "Pump \"1\"/P", id = "nsu=urn:b;s=x", sampling = "500ms" }, # Double 1.5 bar (0 to 16)"#
        ));
        assert!(text.contains(r#"name = "Pump \"1\"/P 2""#));
        assert!(!text.contains("\nb = 2"));
    }
}
