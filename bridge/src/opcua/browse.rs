//! `skerry opcua browse URL`: what a server has to offer, as configuration to paste.

use super::address::NodeAddress;
use super::browse_path::BrowsePath;
use super::config::Security;
use super::error::Error;
use super::find::{OBJECTS_FOLDER, locate};
use super::user::User;
use super::value::{Sample, Value};
use super::visit::{Visit, read_known};
use super::walk::{Bounds, Cut, Found, Sight, walk};
use super::wire::{Class, Session, status_name};
use crate::Boxed;
use std::collections::{BTreeMap, HashSet};

/// Values held at a time: a server may have large ones.
const DESCRIBED_AT_ONCE: usize = 500;
/// Below one folder, as many variables are better configured as a folder.
const FOLDER_VARIABLES: usize = 50;
/// What a value, a type or a name is shown with, at most, in a line that people read.
const SHOWN_MAX: usize = 60;

/// Where and how far to look.
#[derive(Debug, Clone)]
pub struct Browse {
    pub at: Visit,
    /// Where to start; the Objects folder where absent.
    pub from: Option<NodeAddress>,
    /// Levels below the start.
    pub depth_max: usize,
    /// Variables listed; in a tree, nodes of any kind.
    pub variables_max: usize,
}

impl Browse {
    /// A look ten levels deep, at up to ten thousand variables.
    #[must_use]
    pub fn new(at: Visit) -> Self {
        Self {
            at,
            from: None,
            depth_max: 10,
            variables_max: 10_000,
        }
    }
}

/// A variable of the server.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Variable {
    /// Browse names from the start down, joined by `/`.
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
    /// The limit that cut it short, in words.
    pub cut: Option<String>,
}

/// Walks the server's address space from the Objects folder: variables only, without the
/// server's description of itself and without properties of variables.
///
/// # Errors
/// When the server cannot be reached or refuses; see the text of the error.
pub fn browse(look: &Browse) -> Boxed<'_, Result<Listing, Error>> {
    Box::pin(async {
        let session = look.at.session().await?;
        let listing = list(&session, look).await;
        session.leave(false).await;
        listing
    })
}

/// What there is, as a tree with a line for each node: variables with type and value, methods
/// with parentheses.
#[derive(Debug, Clone)]
pub struct Tree {
    pub text: String,
    /// The limit that cut it short, in words.
    pub cut: Option<String>,
}

/// Like [`browse`], with the folders and objects between.
///
/// # Errors
/// When the server cannot be reached or refuses; see the text of the error.
pub fn tree(look: &Browse) -> Boxed<'_, Result<Tree, Error>> {
    Box::pin(async {
        let session = look.at.session().await?;
        let tree = draw(&session, look).await;
        session.leave(false).await;
        tree
    })
}

async fn start(session: &Session, look: &Browse) -> Result<String, Error> {
    let Some(from) = &look.from else {
        return Ok(OBJECTS_FOLDER.to_owned());
    };
    let located = locate(session, &[from]).await?.pop();
    located.unwrap_or(Err(0)).map_err(|code| Error::Service {
        step: "finding where to start",
        status: code,
        detail: format!("{from}: {}", super::nodes::words(code)),
    })
}

/// The nodes that are kept, and the limit that was met.
async fn look_around(
    session: &Session,
    look: &Browse,
    kept: impl Fn(Class) -> bool,
) -> Result<(Vec<Found>, Option<String>), Error> {
    let start = start(session, look).await?;
    let bounds = Bounds {
        depth_max: look.depth_max,
        kept_max: look.variables_max,
    };
    let sight = |_: &str, class| match kept(class) {
        true => Sight::Keep,
        false => Sight::Pass,
    };
    let walked = walk(session, &start, &bounds, sight).await?;
    if let Some((_, code)) = walked.refused.iter().find(|(path, _)| path.is_empty()) {
        return Err(Error::Service {
            step: "browsing",
            status: *code,
            detail: status_name(*code),
        });
    }
    let cut = walked.cut.map(|cut| match cut {
        Cut::Depth(_) => format!("{cut}: --depth looks further"),
        Cut::Kept(_) => format!("{cut}: --nodes lists more, --from starts further down"),
        Cut::Seen | Cut::List => format!("{cut}: --from starts further down"),
    });
    Ok((walked.found, cut))
}

async fn list(session: &Session, look: &Browse) -> Result<Listing, Error> {
    let (found, cut) = look_around(session, look, |class| class == Class::Variable).await?;
    let namespaces = session.namespaces().await?;
    let mut variables = describe(session, &namespaces, found).await?;
    // Servers list in any order; people look for names.
    variables.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(Listing { variables, cut })
}

async fn draw(session: &Session, look: &Browse) -> Result<Tree, Error> {
    let (mut found, cut) = look_around(session, look, |_| true).await?;
    let namespaces = session.namespaces().await?;
    let variables = found.iter().filter(|found| found.class == Class::Variable);
    let variables = describe(session, &namespaces, variables.cloned().collect()).await?;
    let by_path: BTreeMap<(&str, &str), &Variable> = variables
        .iter()
        .map(|variable| ((variable.path.as_str(), variable.id.as_str()), variable))
        .collect();
    // A node comes right after the one above it, its own children before its next sibling.
    found.sort_by_cached_key(|found| (levels(&found.path), found.node.clone()));
    let mut text = String::new();
    for node in &found {
        let above = node.path.len() - levels(&node.path).pop().map_or(0, |name| name.len());
        let name = &node.path[above..];
        let indent = "  ".repeat(node.depth);
        let id = stable(&node.node, &namespaces);
        let about = match by_path.get(&(node.path.as_str(), node.node.as_str())) {
            None if node.class == Class::Method => format!("{name}()"),
            None => format!("{name}/"),
            Some(variable) => {
                let value = match variable.status {
                    0 => shown(&variable.value),
                    code => status_name(code),
                };
                let value = [&*value, &variable.measured_in].join(" ");
                format!("{name} = {}  {}", value.trim_end(), variable.data_type)
            }
        };
        let line = format!("{indent}{}  [{id}]", printable(&about));
        text.push_str(&line);
        text.push('\n');
    }
    Ok(Tree { text, cut })
}

/// The names on a path; a slash within a name does not end it.
fn levels(path: &str) -> Vec<String> {
    let mut levels = vec![String::new()];
    for part in path.split('/') {
        let level = levels.last_mut().expect("starts with one");
        level.push_str(part);
        match part.ends_with('&') {
            true => level.push('/'),
            false => levels.push(String::new()),
        }
    }
    levels.pop();
    levels
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// What the server says must not leave its line, nor play with the terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

async fn describe(
    session: &Session,
    namespaces: &[String],
    found: Vec<Found>,
) -> Result<Vec<Variable>, Error> {
    let mut variables = Vec::with_capacity(found.len());
    for some in found.chunks(DESCRIBED_AT_ONCE) {
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
    let lasting = NodeAddress::lasting(node, namespaces).filter(|_| node.starts_with("ns="));
    lasting.map_or_else(|| node.to_owned(), |address| address.to_string())
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
        let about = [&*variable.data_type, &variable.value, &variable.measured_in].join(" ");
        let about: String = printable(&about).chars().take(SHOWN_MAX).collect();
        let about = about.trim_end();
        text += &format!(
            "  {{ name = {}, id = {}, sampling = \"500ms\" }}, # {about}\n",
            quoted(&name),
            quoted(&variable.stable_id),
        );
    }
    text += "]\n";
    if let Some(cut) = &listing.cut {
        text += &format!("# Not all of the server is here: {cut}.\n");
    }
    text += &folder_text(look, listing, quoted);
    text
}

/// Where many variables stand below one folder: the line that subscribes to all of them.
fn folder_text(look: &Browse, listing: &Listing, quoted: impl Fn(&str) -> String) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for variable in &listing.variables {
        let mut levels = levels(&variable.path);
        if levels.len() > 1 {
            *counts.entry(levels.swap_remove(0)).or_default() += 1;
        }
    }
    let mut text = String::new();
    for (name, count) in counts
        .iter()
        .filter(|(_, count)| **count > FOLDER_VARIABLES)
    {
        let name = printable(name);
        let place = match &look.from {
            // Where the start is an id, it is the place that can be named for sure.
            Some(from) if from.path().is_none() => {
                format!(
                    "id = {}, include = [{}]",
                    quoted(&from.to_string()),
                    quoted(&format!("{name}/**"))
                )
            }
            Some(from) => format!(
                "path = {}",
                quoted(&format!("{from}/{}", BrowsePath::of(&name)))
            ),
            None => format!("path = {}", quoted(&BrowsePath::of(&name).to_string())),
        };
        text += &format!(
            "# {count} variables are below {name}. In place of a line each, this follows all of them, also those\n\
             # that appear later:\n\
             # folders = [{{ {place}, name = {} }}]\n",
            quoted(&name),
        );
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
            cut: None,
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
