//! Models over the node's HTTP, for `skerry model` on the same machine. Which version decides on a
//! machine's alerts is not for others to say, be the port open to them or not.

use crate::http::from_here;
use crate::view::View;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::middleware;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use skerry_inference::{Command, Refused};
use std::sync::Arc;

pub fn routes() -> Router<Arc<View>> {
    Router::new()
        .route("/models", get(list))
        .route("/models/{name}", post(command))
        .layer(middleware::from_fn(from_here))
}

async fn list(State(view): State<Arc<View>>) -> Response {
    Json(view.models.snapshot()).into_response()
}

/// Takes JSON and nothing else, which no page in a browser can send here unasked.
async fn command(
    State(view): State<Arc<View>>,
    Path(name): Path<String>,
    Json(command): Json<Command>,
) -> Response {
    match view.models.command(&name, command).await {
        Ok(done) => done.into_response(),
        Err(refused) => {
            let status = match refused {
                Refused::UnknownModel(_) => StatusCode::NOT_FOUND,
                Refused::NotNow => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::CONFLICT,
            };
            (status, format!("{refused}\n")).into_response()
        }
    }
}
