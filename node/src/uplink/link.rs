//! `skerry uplink link`: which kind of link a running node uses.

use crate::cli::UplinkLink;
use crate::exit::Exit;
use crate::status;
use serde::{Deserialize, Serialize};
use skerry_bridge::uplink::gate::{AUTO, Links};

const PATH: &str = "/uplink/link";

/// What the node answers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    pub class: String,
    /// Why this one, in words.
    pub because: String,
    /// What can be chosen.
    pub classes: Vec<String>,
}

impl Chosen {
    pub fn by(links: &Links) -> Self {
        let settings = links.settings();
        let settings = settings.borrow();
        Self {
            class: settings.class.name.clone(),
            because: settings.why.to_string(),
            classes: links.names().chain([AUTO]).map(str::to_owned).collect(),
        }
    }

    fn in_words(&self) -> String {
        format!(
            "link class {}: {}\nto choose from: {}",
            self.class,
            self.because,
            self.classes.join(", ")
        )
    }
}

pub fn run(args: &UplinkLink) -> Exit {
    let answer = match &args.class {
        Some(class) => status::post(&args.node, PATH, class),
        None => status::fetch(&args.node, PATH),
    };
    let told = answer.and_then(|body| match args.json {
        true => Ok(body),
        false => serde_json::from_str(&body)
            .map(|chosen: Chosen| chosen.in_words())
            .map_err(|error| format!("its answer is not understood: {error}")),
    });
    match told {
        Ok(told) => {
            println!("{told}");
            Exit::Clean
        }
        Err(why) => {
            eprintln!("skerry: the node at {}: {why}", args.node);
            Exit::Failed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::View;
    use skerry_bridge::uplink::gate::LinkClass;
    use std::sync::Arc;
    use tokio::net::TcpListener;

    /// A node's HTTP with these links, or with no uplink.
    async fn node(directory: &std::path::Path, links: Option<Arc<Links>>) -> String {
        let options = skerry_store::Options {
            allow_volatile: true,
            ..skerry_store::Options::new(directory)
        };
        let (log, recovery) = skerry_store::Log::open(options).expect("a log");
        let (name, uplink) = ("n".to_owned(), links.map(|links| (Arc::default(), links)));
        let view = View::new(
            name,
            log,
            recovery,
            None,
            Default::default(),
            Default::default(),
            uplink,
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let stop = tokio_util::sync::CancellationToken::new();
        tokio::spawn(crate::http::serve(listener, Arc::new(view), stop));
        address
    }

    async fn run_on(node: &str, class: Option<&str>) -> Exit {
        let args = UplinkLink {
            class: class.map(str::to_owned),
            node: node.to_owned(),
            json: false,
        };
        let run = tokio::task::spawn_blocking(move || run(&args));
        run.await.expect("no panic")
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_command_reaches_the_node() {
        let directory = tempfile::tempdir().expect("a folder");
        let classes = ["satellite", "harbour"].map(LinkClass::new);
        let links = Arc::new(Links::new(LinkClass::new("default"), classes.to_vec()));
        let address = node(directory.path(), Some(Arc::clone(&links))).await;
        let class = || links.settings().borrow().class.name.clone();
        assert_eq!(run_on(&address, None).await, Exit::Clean);
        assert_eq!(run_on(&address, Some("harbour")).await, Exit::Clean);
        assert_eq!(class(), "harbour");
        assert_eq!(run_on(&address, Some("lte")).await, Exit::Failed);
        assert_eq!(
            (class(), links.commanded()),
            ("harbour".to_owned(), Some("harbour".to_owned()))
        );
        assert_eq!(run_on(&address, Some("auto")).await, Exit::Clean);
        assert_eq!((class(), links.commanded()), ("default".to_owned(), None));
        let post = move || status::post(&address, PATH, "lte");
        let why = tokio::task::spawn_blocking(post)
            .await
            .expect("no panic")
            .unwrap_err();
        assert!(
            why.contains("400: there is no link class `lte`; it is one of `satellite`"),
            "{why}"
        );
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_node_without_an_uplink_says_so() {
        let directory = tempfile::tempdir().expect("a folder");
        let address = node(directory.path(), None).await;
        let post = move || status::post(&address, PATH, "auto");
        let why = tokio::task::spawn_blocking(post)
            .await
            .expect("no panic")
            .unwrap_err();
        assert!(why.contains("no [kafka]"), "{why}");
    }

    #[test]
    fn the_answer_tells_the_class_why_and_the_others() {
        let links = Links::new(LinkClass::new("default"), vec![LinkClass::new("satellite")]);
        links.command("satellite").expect("there is one");
        let chosen = Chosen::by(&links);
        let body = serde_json::to_string(&chosen).expect("JSON");
        assert_eq!(serde_json::from_str::<Chosen>(&body).expect("JSON"), chosen);
        assert_eq!(
            chosen.in_words(),
            "link class satellite: by command\nto choose from: satellite, default, auto"
        );
    }
}
