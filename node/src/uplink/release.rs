//! `skerry uplink release`: lets a stream of a restored or copied disk go on.

use crate::cli::Release;
use crate::exit::Exit;
use crate::status;
use serde::{Deserialize, Serialize};

const PATH: &str = "/uplink/release";

/// What is asked of the node, and, with the offset filled in, its answer.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    pub stream: String,
    pub from: Option<u64>,
}

pub fn run(args: &Release) -> Exit {
    let wanted = Released {
        stream: args.stream.clone(),
        from: args.from,
    };
    let wanted = serde_json::to_string(&wanted).expect("it has string keys only");
    let released = status::post(&args.node, PATH, &wanted).and_then(|body| {
        serde_json::from_str::<Released>(&body)
            .map_err(|error| format!("its answer is not understood: {error}"))
    });
    match released {
        Ok(Released { stream, from }) => {
            let from = from.unwrap_or_default();
            println!("`{stream}` goes on from offset {from} under an epoch of its own");
            Exit::Clean
        }
        Err(why) => {
            eprintln!("skerry: the node at {}: {why}", args.node);
            Exit::Failed
        }
    }
}
