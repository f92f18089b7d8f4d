//! A walk down a server's address space, level by level, that ends whatever the server tells:
//! each node is entered once, and depth, nodes seen and nodes kept have their limits.
//!
//! Levels are walked in the order of their paths, so that a node that stands at two places is
//! found at the same one every time.

use super::error::Error;
use super::find::OBJECTS_FOLDER;
use super::wire::{Class, Reference, Session};
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

/// Nodes looked at in one walk. With what is remembered of each, some megabytes.
pub(super) const SEEN_MAX: usize = 100_000;
/// Nodes browsed before what they brought is sifted.
const NODES_AT_ONCE: usize = 100;

pub(super) struct Bounds {
    /// Levels below the start.
    pub(super) depth_max: usize,
    /// Nodes kept.
    pub(super) kept_max: usize,
}

/// What is to be done with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// It is looked for; what is below it is looked at, too.
    Keep,
    /// Only what is below it may be looked for.
    Pass,
    /// Neither it nor what is below it.
    Skip,
}

/// A node that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Browse names from the start down, joined by `/`; one within a name is `&/`.
    pub(super) path: String,
    /// In the server's terms of today.
    pub(super) node: String,
    pub(super) class: Class,
    /// 0 for what stands directly below the start.
    pub(super) depth: usize,
}

#[derive(Debug, Default)]
pub(super) struct Walked {
    /// In the order in which they were found.
    pub(super) found: Vec<Found>,
    /// The limit that ended the walk early, or cut off a part of it.
    pub(super) cut: Option<Cut>,
    /// Paths of nodes whose children the server would not tell, with its StatusCode.
    pub(super) refused: Vec<(String, u32)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    Depth(usize),
    Kept(usize),
    Seen,
    /// One node's list of children.
    List,
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Depth(depth) => write!(f, "it was looked at {depth} levels deep only"),
            Self::Kept(count) => write!(f, "it has more than {count} nodes"),
            Self::Seen => write!(f, "it does not end within {SEEN_MAX} nodes"),
            Self::List => f.write_str("the list of what stands below one node does not end"),
        }
    }
}

/// Walks down from `start`. `sight` is told the path and the class of each node.
///
/// # Errors
/// When the server could not be asked.
pub(super) async fn walk(
    session: &Session,
    start: &str,
    bounds: &Bounds,
    mut sight: impl FnMut(&str, Class) -> Sight,
) -> Result<Walked, Error> {
    let start = start.strip_prefix("ns=0;").unwrap_or(start);
    let from_objects = start == OBJECTS_FOLDER;
    // 64 bits of a node id tell 100,000 of them apart, in a tenth of the memory.
    let hasher = RandomState::new();
    let mut seen = HashSet::from([hasher.hash_one(start)]);
    let mut walked = Walked::default();
    let mut level = vec![(String::new(), start.to_owned())];
    for depth in 0.. {
        if level.is_empty() {
            break;
        }
        if depth == bounds.depth_max {
            walked.cut = walked.cut.or(Some(Cut::Depth(depth)));
            break;
        }
        level.sort();
        let mut below = Vec::new();
        for some in level.chunks(NODES_AT_ONCE) {
            let nodes: Vec<String> = some.iter().map(|(_, node)| node.clone()).collect();
            let children = session.children(&nodes, SEEN_MAX).await?;
            for ((parent, _), children) in some.iter().zip(children) {
                let mut children = match children {
                    Ok(children) => children,
                    Err(code) => {
                        walked.refused.push((parent.clone(), code));
                        continue;
                    }
                };
                if children.cut {
                    walked.cut = Some(Cut::List);
                }
                // A server lists in any order; what is kept must not depend on it.
                let by_name = |one: &Reference, other: &Reference| one.name.cmp(&other.name);
                children.references.sort_by(by_name);
                for child in children.references {
                    // What the standard itself puts below Objects describes the server.
                    let standard = depth == 0 && from_objects && !child.node.starts_with("ns=");
                    let described = standard || child.property || child.class == Class::Other;
                    if described || !seen.insert(hasher.hash_one(&child.node)) {
                        continue;
                    }
                    if seen.len() > SEEN_MAX {
                        walked.cut = Some(Cut::Seen);
                        return Ok(walked);
                    }
                    // As browse paths have it: a slash in a name does not end it.
                    let name = child.name.replace('/', "&/");
                    let path = match parent.as_str() {
                        "" => name,
                        above => format!("{above}/{name}"),
                    };
                    match sight(&path, child.class) {
                        Sight::Skip => continue,
                        Sight::Pass => {}
                        Sight::Keep if walked.found.len() == bounds.kept_max => {
                            walked.cut = Some(Cut::Kept(bounds.kept_max));
                            return Ok(walked);
                        }
                        Sight::Keep => walked.found.push(Found {
                            path: path.clone(),
                            node: child.node.clone(),
                            class: child.class,
                            depth,
                        }),
                    }
                    // Below a method there are only its arguments.
                    if child.class != Class::Method {
                        below.push((path, child.node));
                    }
                }
            }
        }
        level = below;
    }
    Ok(walked)
}
