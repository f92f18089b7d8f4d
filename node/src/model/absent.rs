//! What a binary without models has in their place.

pub use crate::component::Unheard as Arguments;

use crate::component::INFERENCE;
use crate::config::Models;
use crate::exit::Exit;
use crate::supervise::Supervised;
use crate::view::View;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::any;
use serde::Serialize;
use skerry_store::Log;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

pub fn run(_args: &Arguments) -> Exit {
    INFERENCE.refuse_command()
}

pub fn host() -> Exit {
    INFERENCE.refuse_command()
}

pub fn shadow_problems(_models: &Models) -> Vec<String> {
    Vec::new()
}

pub fn problems(_models: &Models) -> Vec<String> {
    Vec::new()
}

/// For a `skerry model` of another binary.
pub fn routes() -> Router<Arc<View>> {
    let refuse = || async { (StatusCode::NOT_FOUND, INFERENCE.lack() + "\n") };
    Router::new()
        .route("/models", any(refuse))
        .route("/models/{name}", any(refuse))
}

#[derive(Clone, Default)]
pub struct Runner;

impl Runner {
    pub fn new(_models: Models) -> Self {
        Self
    }

    pub fn snapshot(&self) -> impl Serialize {
        None::<()>
    }

    pub fn start(&self, _log: &Log, _stop: &CancellationToken) -> Option<Supervised> {
        None
    }
}
