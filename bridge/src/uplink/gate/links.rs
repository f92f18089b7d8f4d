//! Which link class is in force: watches the route to the brokers and takes commands.

use super::class::{self, AUTO, Leaving, LinkClass, LinkSettings, Why};
use super::route;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

/// How often the route is looked at. That asks the kernel and sends nothing.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// How often the brokers' names are looked up, once they are known: rarely, for it costs bytes.
const RESOLVE_EVERY: Duration = Duration::from_secs(600);
const RESOLVE_AGAIN_AFTER: Duration = Duration::from_secs(15);
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);

/// The link classes of a node, and the one in force. Outlives the uplink's restarts, so that a
/// command holds until the next one.
#[derive(Debug)]
pub struct Links {
    default: LinkClass,
    classes: Vec<LinkClass>,
    state: Mutex<State>,
    settings: watch::Sender<Arc<LinkSettings>>,
    look: Notify,
}

/// What the choice depends on.
#[derive(Debug, Default)]
struct State {
    command: Option<String>,
    leaving: Option<Leaving>,
}

/// Names the classes that there are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no link class `{wanted}`; it is one of {known}")]
pub struct UnknownClass {
    wanted: String,
    known: String,
}

impl Links {
    #[must_use]
    pub fn new(default: LinkClass, classes: Vec<LinkClass>) -> Self {
        let settings = LinkSettings {
            class: default.clone(),
            why: Why::Default,
        };
        Self {
            default,
            classes,
            state: Mutex::default(),
            settings: watch::Sender::new(Arc::new(settings)),
            look: Notify::new(),
        }
    }

    /// The class in force, as it changes.
    #[must_use]
    pub fn settings(&self) -> watch::Receiver<Arc<LinkSettings>> {
        self.settings.subscribe()
    }

    /// Every class that a command may name, the default one last.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let classes = self.classes.iter().chain([&self.default]);
        classes.map(|class| class.name.as_str())
    }

    /// What [`Links::command`] was last, if it was not to choose by itself.
    #[must_use]
    pub fn commanded(&self) -> Option<String> {
        self.state().command.clone()
    }

    /// Uses the class of this name until told otherwise, or, with [`AUTO`], whichever applies.
    ///
    /// # Errors
    /// When there is no such class.
    pub fn command(&self, name: &str) -> Result<(), UnknownClass> {
        let command = match name {
            AUTO => None,
            name if self.names().any(|known| known == name) => Some(name.to_owned()),
            _ => {
                let known = self.names().chain([AUTO]);
                let known: Vec<_> = known.map(|name| format!("`{name}`")).collect();
                return Err(UnknownClass {
                    wanted: name.to_owned(),
                    known: known.join(", "),
                });
            }
        };
        self.choose(|state| state.command = command);
        self.look_again();
        Ok(())
    }

    /// Something failed that the route may be to blame for.
    pub fn look_again(&self) {
        self.look.notify_one();
    }

    /// Keeps the choice up to date, for ever. `brokers` are `host:port`.
    pub async fn follow(&self, brokers: &[String]) {
        let mut known = Known::default();
        loop {
            known.refresh(brokers).await;
            let leaving = route::leaving(&known.addresses);
            self.choose(|state| state.leaving = leaving);
            // Timed out or told: either way it is looked at again.
            let _ = timeout(LOOK_EVERY, self.look.notified()).await;
        }
    }

    fn choose(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        let (command, leaving) = (state.command.as_deref(), state.leaving.as_ref());
        let (class, why) = class::select(&self.default, &self.classes, command, leaving);
        self.settings.send_if_modified(|settings| {
            let news = settings.class.name != class.name || settings.why != why;
            if news {
                let class = class.clone();
                *settings = Arc::new(LinkSettings { class, why });
            }
            news
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The brokers' addresses as last found.
#[derive(Default)]
struct Known {
    addresses: Vec<SocketAddr>,
    next: Option<Instant>,
}

impl Known {
    /// Looks names up if it is time to; what was found before stays where nothing is found.
    async fn refresh(&mut self, brokers: &[String]) {
        if self.next.is_some_and(|next| Instant::now() < next) {
            return;
        }
        let mut addresses = Vec::new();
        for broker in brokers {
            if let Ok(Ok(found)) = timeout(RESOLVE_WITHIN, lookup_host(broker)).await {
                addresses.extend(found);
            }
        }
        let found = !addresses.is_empty();
        if found {
            self.addresses = addresses;
        }
        let wait = if found {
            RESOLVE_EVERY
        } else {
            RESOLVE_AGAIN_AFTER
        };
        self.next = Some(Instant::now() + wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> Links {
        let mut classes = ["satellite", "harbour"].map(LinkClass::new);
        classes[0].interface = Some("sat0".to_owned());
        Links::new(LinkClass::new(class::DEFAULT), classes.to_vec())
    }

    #[test]
    fn a_command_holds_at_once_and_until_the_next() {
        let links = links();
        let settings = links.settings();
        let current = || {
            (
                settings.borrow().class.name.clone(),
                settings.borrow().why.clone(),
            )
        };
        links.command("harbour").unwrap();
        assert_eq!(current(), ("harbour".to_owned(), Why::Command));
        let leaving = Leaving {
            source: [10, 0, 0, 1].into(),
            interface: Some("sat0".to_owned()),
        };
        links.choose(|state| state.leaving = Some(leaving));
        assert_eq!(current().0, "harbour");
        links.command(AUTO).unwrap();
        let why = Why::Interface("sat0".to_owned());
        assert_eq!(current(), ("satellite".to_owned(), why));
        links.choose(|state| state.leaving = None);
        assert_eq!(current(), (class::DEFAULT.to_owned(), Why::Default));
        let why = links.command("lte").unwrap_err().to_string();
        assert!(
            why.contains("`satellite`, `harbour`, `default`, `auto`"),
            "{why}"
        );
    }

    /// On this machine the way to loopback is `lo`, from 127.0.0.1.
    #[tokio::test]
    async fn the_route_to_the_brokers_chooses() {
        let by_interface = LinkClass {
            interface: Some("lo".to_owned()),
            ..LinkClass::new("local")
        };
        let by_route = LinkClass {
            route: Some("127.0.0.0/8".parse().unwrap()),
            ..LinkClass::new("local")
        };
        for (class, why) in [
            (by_interface, Why::Interface("lo".to_owned())),
            (by_route, Why::Route("127.0.0.0/8".to_owned())),
        ] {
            let links = Links::new(LinkClass::new(class::DEFAULT), vec![class]);
            let mut settings = links.settings();
            let brokers = ["127.0.0.1:9092".to_owned()];
            tokio::select! {
                () = links.follow(&brokers) => {}
                chosen = settings.wait_for(|it| it.class.name == "local") => {
                    assert_eq!(chosen.unwrap().why, why);
                }
            }
        }
    }
}
