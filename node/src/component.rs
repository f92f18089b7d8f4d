//! What a build may leave out, and what a binary without it says.
//!
//! Each [`Component`] is a cargo feature. Where it is left out, an `absent.rs` stands in for each of
//! its modules: the same interface with nothing behind it. So `#[cfg]` is where modules are
//! declared, and the rest of the node does not know.

/// What only those that stand in need. Whatever is left out, the demo is too.
#[cfg(any(test, not(feature = "demo")))]
mod absent;

#[cfg(not(feature = "demo"))]
pub use absent::Unheard;

use std::sync::LazyLock;

/// Something that a build may leave out.
#[derive(Debug, Clone, Copy)]
pub struct Component {
    /// The cargo feature.
    pub feature: &'static str,
    /// What an operator knows it as.
    pub name: &'static str,
    /// The key in the config that is for it alone.
    pub section: Option<&'static str>,
    pub is_in: bool,
}

pub const OPCUA: Component = Component {
    feature: "opcua",
    name: "the OPC-UA client",
    section: Some("opcua"),
    is_in: cfg!(feature = "opcua"),
};

pub const INFERENCE: Component = Component {
    feature: "inference",
    name: "models",
    section: Some("model"),
    is_in: cfg!(feature = "inference"),
};

pub const DEMO: Component = Component {
    feature: "demo",
    name: "the demo",
    section: None,
    is_in: cfg!(feature = "demo"),
};

pub const ALL: [Component; 3] = [OPCUA, INFERENCE, DEMO];

impl Component {
    /// Why something cannot be done, and what to do.
    pub fn lack(&self) -> String {
        format!(
            "this binary was built without {}; install a skerry that has `{}` (`skerry version` \
             tells)",
            self.name, self.feature
        )
    }
}

/// The version and what is in this binary, in one line.
pub fn version() -> &'static str {
    static VERSION: LazyLock<String> =
        LazyLock::new(|| format!("{} ({})", env!("CARGO_PKG_VERSION"), listed(&ALL)));
    &VERSION
}

fn listed(components: &[Component]) -> String {
    let those = |are_in: bool, word: &str| {
        let chosen = components.iter().filter(|it| it.is_in == are_in);
        let features: Vec<_> = chosen.map(|it| it.feature).collect();
        (!features.is_empty()).then(|| format!("{word} {}", features.join(", ")))
    };
    let lists = [those(true, "with"), those(false, "without")];
    lists.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_tells_what_is_in_a_binary() {
        for (features, told) in [
            (
                &["opcua", "inference", "demo"][..],
                "with opcua, inference, demo",
            ),
            (&["opcua"], "with opcua; without inference, demo"),
            (&[], "without opcua, inference, demo"),
        ] {
            let built = ALL.map(|component| Component {
                is_in: features.contains(&component.feature),
                ..component
            });
            assert_eq!(listed(&built), told);
        }
    }
}
