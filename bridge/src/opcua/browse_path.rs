//! The way to a node by names: `Plant/Pump1/Speed`, from the Objects folder down.
//!
//! Names are the nodes' browse names, written as in the standard's text for relative paths (Part 4,
//! annex A.2): `/` between them, a namespace index before `:`, and `&` before a character that is
//! part of the name although it means something here (`/`, `&`, and the `:` after digits). Beyond
//! the standard, `nsu=URI;Name` names the namespace by its URI, which survives a change of the
//! server's numbering, and a name without namespace is looked for in all of them. A dot is a dot:
//! PLCs have names such as `DB1.Speed`, and `/` goes to components as well.

use super::address::{AddressError, Namespace};
use std::fmt;
use std::str::FromStr;

/// Deeper than any address space made for people.
const ELEMENTS_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BrowsePath {
    elements: Vec<Element>,
}

/// One step down.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Element {
    /// Any, where absent.
    namespace: Option<Namespace>,
    name: String,
}

impl BrowsePath {
    /// One step down, as a walk tells the name: a slash within is `&/`.
    pub(super) fn of(name: &str) -> Self {
        let name = name.replace("&/", "/");
        let namespace = None;
        Self {
            elements: vec![Element { namespace, name }],
        }
    }

    pub(super) fn elements(&self) -> &[Element] {
        &self.elements
    }
}

impl Element {
    /// Whether a node with this browse name is meant, given the server's namespace array.
    pub(super) fn fits(&self, index: u16, name: &str, namespaces: &[String]) -> bool {
        let any = self.namespace.is_none();
        let named = || self.namespace.as_ref()?.index(namespaces);
        self.name == name && (any || named() == Some(index))
    }
}

impl FromStr for BrowsePath {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError::Path(text.to_owned());
        let mut rest = text.strip_prefix('/').unwrap_or(text);
        let mut elements = Vec::new();
        loop {
            let (element, after) = element(rest).ok_or_else(wrong)?;
            elements.push(element);
            match after {
                Some(_) if elements.len() == ELEMENTS_MAX => return Err(wrong()),
                Some(after) => rest = after,
                None => return Ok(Self { elements }),
            }
        }
    }
}

/// The first element, and what follows its `/` if there is one.
fn element(text: &str) -> Option<(Element, Option<&str>)> {
    let (namespace, rest) = match text.strip_prefix("nsu=") {
        // A URI has slashes of its own.
        Some(named) => {
            let (uri, rest) = named.split_once(';')?;
            (Some(Namespace::Uri(uri.to_owned())), rest)
        }
        None => match text.split_once(':') {
            Some((digits, rest)) if is_number(digits) => {
                (Some(Namespace::Index(digits.parse().ok()?)), rest)
            }
            _ => (None, text),
        },
    };
    if matches!(&namespace, Some(Namespace::Uri(uri)) if uri.is_empty()) {
        return None;
    }
    let mut name = String::new();
    let mut characters = rest.char_indices();
    let mut after = None;
    while let Some((at, character)) = characters.next() {
        match character {
            '/' => {
                after = Some(&rest[at + 1..]);
                break;
            }
            '&' => name.push(characters.next()?.1),
            plain => name.push(plain),
        }
    }
    (!name.is_empty()).then_some((Element { namespace, name }, after))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

impl fmt::Display for BrowsePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, element) in self.elements.iter().enumerate() {
            if index > 0 {
                f.write_str("/")?;
            }
            element.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(Namespace::Index(index)) => write!(f, "{index}:")?,
            Some(Namespace::Uri(uri)) => write!(f, "nsu={uri};")?,
            None => {}
        }
        let looks_numbered = self
            .name
            .split_once(':')
            .is_some_and(|(it, _)| is_number(it));
        let misread = self.namespace.is_none() && (looks_numbered || self.name.starts_with("nsu="));
        for (index, character) in self.name.chars().enumerate() {
            let first = misread && index == 0 && self.name.starts_with("nsu=");
            let colon = misread && looks_numbered && character == ':';
            if matches!(character, '/' | '&') || first || colon {
                f.write_str("&")?;
            }
            write!(f, "{character}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_carry_their_namespace() {
        let namespaces = [
            "".into(),
            "urn:local".into(),
            "http://plant.example/UA/".into(),
        ];
        let path: BrowsePath = "/Plant/1:Pump1/nsu=http://plant.example/UA/;Speed"
            .parse()
            .unwrap();
        let [plant, pump, speed] = path.elements() else {
            panic!("{path:?}");
        };
        assert!(plant.fits(0, "Plant", &namespaces) && plant.fits(7, "Plant", &namespaces));
        assert!(!plant.fits(0, "Plants", &namespaces));
        assert!(pump.fits(1, "Pump1", &namespaces) && !pump.fits(2, "Pump1", &namespaces));
        assert!(speed.fits(2, "Speed", &namespaces) && !speed.fits(1, "Speed", &namespaces));
        let unknown: BrowsePath = "nsu=urn:elsewhere;x".parse().unwrap();
        assert!(!unknown.elements()[0].fits(0, "x", &namespaces));
    }

    #[test]
    fn what_means_something_can_be_part_of_a_name() {
        for (text, names) in [
            ("a&/b/c", vec!["a/b", "c"]),
            ("DB1.Speed", vec!["DB1.Speed"]),
            ("12&:30/x:y", vec!["12:30", "x:y"]),
            ("&nsu=1/&&", vec!["nsu=1", "&"]),
            ("3:4:5", vec!["4:5"]),
        ] {
            let path: BrowsePath = text.parse().unwrap();
            let read: Vec<_> = path.elements().iter().map(|it| it.name.as_str()).collect();
            assert_eq!(read, names, "{text}");
            assert_eq!(path.to_string(), text, "written as it is read");
        }
    }

    #[test]
    fn half_a_path_is_none() {
        for wrong in [
            "",
            "/",
            "a//b",
            "a/",
            "nsu=urn:x",
            "nsu=;a",
            "70000:a",
            "a&",
        ] {
            assert!(wrong.parse::<BrowsePath>().is_err(), "{wrong}");
        }
    }
}
