//! From addresses as configured to node ids in the server's terms of today.
//!
//! Browse paths are followed by browsing, a level of all of them at a time:
//! TranslateBrowsePathsToNodeIds is missing on small servers, and wants the namespace of every
//! name, which people do not know.

use super::address::NodeAddress;
use super::error::{Error, status};
use super::wire::{Class, Reference, Session};
use std::collections::{BTreeMap, BTreeSet};

/// The Objects folder (Part 5, 8.2.4), below which the plant stands.
pub(super) const OBJECTS_FOLDER: &str = "i=85";
/// Nodes browsed before what they brought is sifted.
const NODES_AT_ONCE: usize = 100;
/// References of one node that are looked through.
const REFERENCES_MAX: usize = 100_000;
/// Nodes that a path may lead to on its way: same names in several namespaces.
const BRANCHES_MAX: usize = 16;

/// A node id in the server's terms, or the StatusCode that says why there is none.
pub(super) type Located = Result<String, u32>;

/// Where each of `addresses` is today, in their order.
///
/// # Errors
/// When the server could not be asked.
pub(super) async fn locate(
    session: &Session,
    addresses: &[&NodeAddress],
) -> Result<Vec<Located>, Error> {
    let namespaces = session.namespaces().await?;
    let mut paths = Vec::new();
    let mut located: Vec<Located> = Vec::with_capacity(addresses.len());
    for (index, address) in addresses.iter().enumerate() {
        if address.path().is_some() {
            paths.push(index);
        }
        let id = address.resolve(&namespaces);
        located.push(id.ok_or(status::BAD_NODE_ID_UNKNOWN));
    }
    let start = || BTreeSet::from([OBJECTS_FOLDER.to_owned()]);
    let mut walkers: BTreeMap<usize, BTreeSet<String>> =
        paths.into_iter().map(|index| (index, start())).collect();
    for depth in 0.. {
        // Those that have arrived, or have nowhere to go.
        walkers.retain(|index, ends| {
            let path = addresses[*index].path().expect("only paths walk");
            let arrived = path.elements().len() == depth || ends.is_empty();
            if arrived {
                located[*index] = the_one(ends);
            }
            !arrived
        });
        if walkers.is_empty() {
            break;
        }
        let mut next: BTreeMap<usize, BTreeSet<String>> = walkers
            .keys()
            .map(|index| (*index, BTreeSet::new()))
            .collect();
        let distinct: BTreeSet<&String> = walkers.values().flatten().collect();
        let distinct: Vec<String> = distinct.into_iter().cloned().collect();
        for nodes in distinct.chunks(NODES_AT_ONCE) {
            let below = session.children(nodes, REFERENCES_MAX).await?;
            for (node, below) in nodes.iter().zip(below) {
                let references = below.map(|children| children.references);
                let references = references.unwrap_or_default();
                for (index, _) in walkers.iter().filter(|(_, ends)| ends.contains(node)) {
                    let path = addresses[*index].path().expect("only paths walk");
                    let fits = |reference: &&Reference| {
                        let element = &path.elements()[depth];
                        reference.class != Class::Other
                            && element.fits(reference.namespace, &reference.name, &namespaces)
                    };
                    let ends = next.entry(*index).or_default();
                    for reference in references.iter().filter(fits) {
                        if ends.len() <= BRANCHES_MAX {
                            ends.insert(reference.node.clone());
                        }
                    }
                }
            }
        }
        walkers = next;
    }
    Ok(located)
}

fn the_one(ends: &BTreeSet<String>) -> Located {
    match (ends.len(), ends.first()) {
        (1, Some(node)) => Ok(node.clone()),
        (0, _) => Err(status::BAD_NO_MATCH),
        _ => Err(status::BAD_TOO_MANY_MATCHES),
    }
}
